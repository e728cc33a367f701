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
    file = tmp_path / "training.json"
    file.write_text('{"seed": 0}')
    assert read_class_names(tmp_path) is None
    file.write_text('{"class_names": ["null", "один"]}', encoding="utf-8")
    assert read_class_names(tmp_path) == ("null", "один")
    for broken in ("{", "[]", '"text"', "[" * 10_000):
        file.write_text(broken)
        with pytest.raises(ValueError, match=r"training\.json is not what a training script writes"):
            read_class_names(tmp_path)
    file.write_text('{"class_names": {"0": "cat"}}')
    with pytest.raises(ValueError, match=r"class_names in .*training\.json must be a list of strings"):
        read_class_names(tmp_path)
