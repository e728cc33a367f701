"""Class names, and the likeliest classes."""

from pathlib import Path

import pytest
import torch

from perceiver_io.processors import imagenet_classes, kinetics700_classes, likeliest_classes, read_class_names


def test_class_names() -> None:
    assert len(imagenet_classes()) == 1000
    assert imagenet_classes()[0] == "tench, Tinca tinca"
    assert imagenet_classes()[417] == "balloon"
    assert imagenet_classes()[999] == "toilet tissue, toilet paper, bathroom tissue"
    assert len(set(kinetics700_classes())) == 700
    assert kinetics700_classes()[0] == "abseiling"
    assert kinetics700_classes()[699] == "zumba"


def test_the_likeliest_classes_come_first() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]], dtype=torch.float16)
    first, second = likeliest_classes(logits, ["a", "b", "c"], top=2)
    assert [name for name, _ in first] == ["b", "c"]
    assert [share for _, share in first] == pytest.approx([0.6652, 0.2447], abs=1e-3)
    assert second[0].name == "a"
    assert len(likeliest_classes(logits, ["a", "b", "c"], top=9)[0]) == 3


def test_class_names_beside_a_model(tmp_path: Path) -> None:
    assert read_class_names(tmp_path) is None
    # Version 0.1.0 left them in the notes of the training.
    for name, before, after in (("training.json", "", ""), ("config.json", '{"metadata": ', "}")):
        file = tmp_path / name
        file.write_text(f'{before}{{"seed": 0}}{after}')
        assert read_class_names(tmp_path) == (None if name == "training.json" else ("training", "json"))
        file.write_text(f'{before}{{"class_names": ["null", "один"]}}{after}', encoding="utf-8")
        assert read_class_names(tmp_path) == ("null", "один")
        for broken in ("{", "[]", '"text"', "[" * 10_000):
            file.write_text(broken)
            with pytest.raises(ValueError, match=rf"{name} is not what this library writes"):
                read_class_names(tmp_path)
        file.write_text(f'{before}{{"class_names": {{"0": "cat"}}}}{after}')
        with pytest.raises(ValueError, match=rf"class_names in .*{name} must be a list of strings"):
            read_class_names(tmp_path)
        file.write_text('{"class_names": ["training", "json"]}')
