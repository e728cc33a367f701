"""The figures of a run at Weights & Biases, beside `metrics.jsonl`; nothing that goes wrong there ends the run."""

import re
import secrets
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from perceiver_io.optional import needs_extra

ID_FILE = "wandb-id.txt"
_NUMBER = re.compile(r"[0-9a-f]{8}")
# Seconds that the end of a run waits for what is not sent yet; it stays on the disk.
_PATIENCE = 60.0


class WandbLog:
    """Sends a run's figures to Weights & Biases by its own package.

    A context manager: at its end the run there is over, too. A resumed run goes on with the same run there, whose
    number is kept in the run's directory; without it, with a new one. Where the server is away, or nobody is logged in,
    figures are kept on the disk for `wandb sync`, with a warning.

    Args:
        project: of Weights & Biases.
        name: of the run.
        config: what is shown beside the figures, as JSON can say it.

    Raises:
        ImportError: `wandb` is missing; it comes with the `wandb` extra.
    """

    def __init__(self, project: str, name: str, config: Mapping[str, Any]) -> None:
        with needs_extra("logging to Weights & Biases", "wandb"):
            import wandb
        self._wandb = wandb
        self._settings = {"project": project, "name": name, "config": dict(config)}
        self._run: Any = None

    def begin(self, directory: Path, start_step: int) -> None:
        """Begins a run, or goes on with it.

        Args:
            directory: of the run.
            start_step: updates that were done before.
        """
        path = directory / ID_FILE
        number = path.read_text(encoding="ascii", errors="replace").strip() if start_step and path.is_file() else ""
        if not _NUMBER.fullmatch(number):
            number = secrets.token_hex(4)
            path.write_text(number + "\n", encoding="ascii")
        settings: dict[str, Any] = {
            **self._settings,
            "id": number,
            "resume": "allow",
            "dir": str(directory),
            # Our own lines stay as they are.
            "settings": {"console": "off", "finish_timeout": _PATIENCE},
        }
        try:
            self._run = self._wandb.init(**settings)
        except Exception as error:
            _warn(error, f"its figures are kept in {directory / 'wandb'}, for `wandb sync`")
            try:
                self._run = self._wandb.init(**settings, mode="offline")
            except Exception as another:
                _warn(another, "the run goes on without it")

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Sends the figures of a step. Those of steps before the last one that was sent are left out there."""
        if self._run is None:
            return
        try:
            self._run.log(dict(figures), step=step)
        except Exception as error:
            self._run = None
            _warn(error, "the run goes on without it")

    def __enter__(self) -> "WandbLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._run is None:
            return
        try:
            self._run.finish(exit_code=0 if error is None else 1)
        except Exception as another:
            _warn(another, "what was not sent yet is on the disk")


def _warn(error: Exception, consequence: str) -> None:
    reason = " ".join(str(error).split()) or type(error).__name__
    warnings.warn(f"Weights & Biases cannot be reached ({reason}); {consequence}", stacklevel=3)
