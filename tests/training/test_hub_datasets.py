"""Data sets of Hugging Face's `datasets`, made on the disk: nothing comes from the network."""

from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
from torch import Tensor
from torch.utils.data import DataLoader

from perceiver_io.training import Draw
from perceiver_io.training.data.hub_datasets import is_hub_dataset, open_hub_dataset
from perceiver_io.training.data.text import TextWindows, read_documents, split_documents

TEXTS = ["first", "", "two\nlines", None, "Grüße \U0001f600", "the last of all"]
FULL = [text.encode() for text in TEXTS if text]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def saved(directory: Path, texts: list[str | None] = TEXTS) -> Path:
    made = datasets.Dataset.from_dict({"url": ["somewhere"] * len(texts), "text": texts, "number": [3] * len(texts)})
    made.save_to_disk(directory)
    return directory


def test_a_saved_data_set_is_opened(tmp_path: Path) -> None:
    assert is_hub_dataset(saved(tmp_path / "made"))
    assert not is_hub_dataset(tmp_path)
    assert open_hub_dataset(tmp_path / "made", "text")["text"] == TEXTS


def test_several_data_sets_are_named(tmp_path: Path) -> None:
    made = datasets.Dataset.from_dict({"text": ["a", "b"]})
    datasets.DatasetDict({"train": made, "test": made}).save_to_disk(tmp_path / "made")
    assert is_hub_dataset(tmp_path / "made")
    with pytest.raises(ValueError, match=r"made holds several data sets; name the folder of one: .*made/train, .*test"):
        open_hub_dataset(tmp_path / "made")
    assert len(open_hub_dataset(tmp_path / "made" / "train")) == 2


def test_another_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"made has no column 'body', only 'url', 'text', 'number'; add it"):
        open_hub_dataset(saved(tmp_path / "made"), "text", "body")
    with pytest.raises(ValueError, match=r"the column 'number' of .*made holds int64, not texts; name the column"):
        read_documents(tmp_path / "made", "number")
    with pytest.raises(ValueError, match=r"made has no column 'body', only .*; name the column .* with --text-column"):
        read_documents(tmp_path / "made", "body")
    assert bytes(read_documents(tmp_path / "made", "url", rows_apart=True)[0]) == b"somewhere"


@pytest.mark.parametrize("name", ["data-00000-of-00001.arrow", "state.json"])
def test_half_a_data_set(name: str, tmp_path: Path) -> None:
    file = saved(tmp_path / "made") / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"made is not a data set that can be opened: "):
        open_hub_dataset(tmp_path / "made")


@pytest.mark.parametrize(
    ("source", "called"),
    [
        ("hf:allenai/c4/en:train[:1%]", ("allenai/c4", "en", "train[:1%]")),
        ("hf:wikimedia/wikipedia/20231101.en", ("wikimedia/wikipedia", "20231101.en", "train")),
        ("hf:stanfordnlp/imdb:test", ("stanfordnlp/imdb", None, "test")),
        ("hf:imdb", ("imdb", None, "train")),
    ],
)
def test_names_on_the_hub(source: str, called: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load_dataset(path: str, name: str | None, split: str) -> datasets.Dataset:
        calls.append((path, name, split))
        return datasets.Dataset.from_dict({"text": TEXTS})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert is_hub_dataset(Path(source))
    assert open_hub_dataset(Path(source))["text"] == TEXTS
    assert calls == [called]


def test_a_hub_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"hf:nobody/nothing is not a data set that can be opened: Couldn't reach"):
        open_hub_dataset("hf:nobody/nothing")


def test_texts_are_read_as_those_at_hand(tmp_path: Path) -> None:
    source = saved(tmp_path / "made")
    assert [bytes(text) for text in read_documents(source, rows_apart=True)] == FULL
    (joined,) = read_documents(source)
    assert bytes(joined) == b"\n\n".join(FULL)
    for length in (3, 8):
        for split, at_hand in zip(split_documents([joined], 0.4), split_documents([bytes(joined)], 0.4), strict=True):
            one, other = TextWindows(split, length), TextWindows(at_hand, length)
            assert one.fingerprint() == other.fingerprint()
            for index in range(len(one)):
                assert one[Draw(index, 5)]["tokens"].equal(other[Draw(index, 5)]["tokens"])


def test_texts_are_read_in_other_processes(tmp_path: Path) -> None:
    windows = TextWindows(read_documents(saved(tmp_path / "made")), 5)
    draws = [Draw(index, 3) for index in range(len(windows))]
    loader: DataLoader[dict[str, Tensor]] = DataLoader(windows, sampler=draws, batch_size=None, num_workers=1)  # type: ignore[arg-type]
    for draw, example in zip(draws, loader, strict=True):
        assert example["tokens"].equal(windows[draw]["tokens"])


def test_no_text(tmp_path: Path) -> None:
    for rows_apart in (False, True):
        with pytest.raises(ValueError, match=r"made holds no text: its column 'text' is empty"):
            read_documents(saved(tmp_path / "made", ["", None]), rows_apart=rows_apart)
