"""A server, and an environment without proxies."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.weights.downloads.site import Site, serve


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PERCEIVER_IO_CACHE", str(tmp_path / "default_cache"))


@pytest.fixture
def site() -> Iterator[Site]:
    """A server of a file of a million random bytes."""
    with serve(Site(content=np.random.default_rng(0).bytes(1_000_003))) as running:
        yield running
