"""The table of bfloat16 beside float32, at sizes of no meaning."""

import pytest

from benchmarks import half_precision
from benchmarks.rows import ROWS


def test_a_line_for_each_row(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.set_num_threads", lambda number: None)  # other tests have theirs
    half_precision.main(["--tiny", "--turns", "1", "--rows", "language-60", "video-chunk", "optical-flow"])
    _, _, language, video, flow = capsys.readouterr().out.splitlines()
    for line, name in ((language, "language-60"), (video, "video-chunk")):
        _, title, _, _, ratio, largest, mean, _ = (cell.strip() for cell in line.split("|"))
        assert title == ROWS[name].title
        assert ratio.endswith("×")
        assert 0 < float(mean) < float(largest) < 0.2
    assert flow.endswith("| – | – |")
