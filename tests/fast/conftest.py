"""The code paths of a GPU, forced on the CPU."""

import pytest

from perceiver_io import attention, checks
from perceiver_io.fast import choice


@pytest.fixture
def as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has tensors on the CPU treated as if they lay on a GPU."""
    monkeypatch.setattr(choice, "kind_of", lambda tensor: "cpu" if tensor.is_meta else "cuda")
    monkeypatch.setattr(checks, "is_at_hand", lambda device: False)
    monkeypatch.setattr(attention, "_takes_repeated_rows", lambda device: False)
