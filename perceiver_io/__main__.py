"""`python -m perceiver_io`: the same as `perceiver-io`."""

import sys

from perceiver_io.commands.cli import main

sys.exit(main())
