"""Arrays and tensors are processed by the core alone."""

import subprocess
import sys

SCRIPT = """
import sys
for package in ("PIL", "av", "matplotlib", "tqdm", "cv2"):
    sys.modules[package] = None  # importing it fails
import numpy as np, torch
from perceiver_io.processors import FlowProcessor, ImageProcessor, TextProcessor, VideoProcessor
frames = np.zeros((4, 20, 30, 3), np.uint8)
assert ImageProcessor((8, 8), ["a"])(frames).shape == (4, 3, 8, 8)
assert FlowProcessor()(frames[0], frames[1]).frame1.shape == (1, 3, 20, 30)
assert FlowProcessor().pictures(torch.zeros(1, 2, 4, 5))[0].shape == (4, 5, 3)
assert VideoProcessor(4, (8, 8), 16, ["a"])(frames, torch.zeros(64)).audio.shape == (1, 64, 1)
assert TextProcessor(9)("a[MASK]").tokens.shape == (1, 2)
try:
    ImageProcessor((8, 8), ["a"])("picture.png")
except ImportError as error:
    print(error)
"""


def test_the_core_is_enough() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert (
        ran.stdout.strip() == "reading pictures needs PIL; install it with: pip install 'perceiver-io-torch[examples]'"
    )
