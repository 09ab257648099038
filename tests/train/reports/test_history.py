"""What is kept of a fit's epochs, and which of them are drawn."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from train.config.load import load
from train.engine.trainer import Epoch
from train.plots.evaluation import MANY, confusion_png
from train.reports import history as histories
from train.reports.history import HeadHistory
from train.tracking.tracker import Step, log_all


class Recorder:
    """A tracker that keeps what it is told."""

    records = True
    is_logged = staticmethod(log_all)

    def __init__(self) -> None:
        self.files: list[str] = []
        self.requests: list[list[int]] = []
        self.tables: dict[str, dict[str, list[Any]]] = {}

    def steps(self, steps: Sequence[Step]) -> None:
        self.requests.append([step.number for step in steps])

    def file(self, path: Path, folder: str | None = None) -> None:
        if path.suffix == ".parquet":
            self.tables[path.name] = pq.read_table(path).to_pydict()
            return
        assert path.read_bytes().startswith(b"\x89PNG")
        self.files.append(f"{folder}/{path.name}")

    def table(self, table: dict[str, list[Any]], name: str) -> None:
        self.tables[name] = table


@pytest.mark.slow
@pytest.mark.parametrize(
    ("log_all", "drawn"), [(None, [1, 5]), (2, [0, 1, 2, 4, 5]), (5, [0, 1, 5]), (9, [0, 1, 5])]
)
def test_the_best_and_the_last_epoch_are_drawn_and_others_on_request(
    log_all: int | None, drawn: list[int], tmp_path: Path
):
    config = load(["fold=0", *([f"confusion_every={log_all}"] if log_all else [])])
    tracker = Recorder()
    run: Any = SimpleNamespace(
        config=config, tracker=tracker, is_main=True, folder=tmp_path, states=tmp_path
    )
    history, loss = HeadHistory(run), torch.tensor([0.5])
    for number in range(6):
        confusion = torch.zeros((10, 10), dtype=torch.int64)
        confusion[3, number] = number + 1
        history.epoch(Epoch(number, torch.tensor([0]), loss, loss, confusion))
    result: Any = SimpleNamespace(best_epoch=torch.tensor([1]))
    history.close(result)
    assert tracker.files == [f"confusion/epoch_{number:04d}.png" for number in drawn]
    assert tracker.tables["confusion.json"] == {
        "epoch": [0, 1, 2, 3, 4, 5], "true": ["3"] * 6,
        "predicted": ["0", "1", "2", "3", "4", "5"], "tiles": [1, 2, 3, 4, 5, 6],
    }  # fmt: skip


def test_many_classes_are_kept_as_cells_and_what_is_not_logged_is_not_saved(tmp_path: Path):
    recorder: Any = Recorder()
    recorder.is_logged = lambda name: name.endswith("f1_macro")
    config = load(["fold=0"])
    config.class_indices = {f"class {number}": number for number in range(MANY + 1)}
    run: Any = SimpleNamespace(
        config=config, tracker=recorder, is_main=True, folder=tmp_path, states=tmp_path
    )
    history, loss = HeadHistory(run), torch.tensor([0.5])
    confusion = torch.zeros((MANY + 1, MANY + 1), dtype=torch.int64)
    confusion[25, 3] = 7
    for number in (0, 1):
        history.epoch(Epoch(number, torch.tensor([0]), loss, loss, confusion))
    [unsent] = history.state_dict()["unsent"]
    assert sorted(unsent[2]) == [
        "learning_rate", "train/loss", "validation/f1_macro", "validation/loss"
    ]  # fmt: skip
    history.close(SimpleNamespace(best_epoch=torch.tensor([1])))  # type: ignore[arg-type]
    assert recorder.tables == {"confusion.parquet": {
        "epoch": [0, 1], "true": ["class 25"] * 2, "predicted": ["class 3"] * 2, "tiles": [7, 7],
    }}  # fmt: skip


def history_of(tmp_path: Path) -> HeadHistory:
    run: Any = SimpleNamespace(
        config=load(["fold=0"]), tracker=Recorder(), is_main=True, folder=tmp_path, states=tmp_path
    )
    return HeadHistory(run)


def train(history: HeadHistory, *numbers: int) -> Recorder:
    """Record epochs; return the tracker."""
    loss, confusion = torch.tensor([0.5]), torch.eye(10, dtype=torch.int64)
    for number in numbers:
        history.epoch(Epoch(number, torch.tensor([0]), loss, loss, confusion))
    recorder: Any = history.run.tracker
    return recorder


def test_short_epochs_share_a_request_and_long_ones_have_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The first is recorded at once, the others when a second has passed, or at the end."""
    history = history_of(tmp_path)
    assert train(history, 0, 1, 2, 3).requests == [[0]]
    history.close(SimpleNamespace(best_epoch=torch.tensor([0])))  # type: ignore[arg-type]
    assert train(history).requests == [[0], [1, 2, 3]]
    monkeypatch.setattr(histories, "EVERY", 0.0)
    assert train(history_of(tmp_path), 0, 1, 2).requests == [[0], [1], [2]]


def test_what_a_killed_run_had_not_recorded_is_recorded_when_it_goes_on(tmp_path: Path):
    killed, other = history_of(tmp_path), history_of(tmp_path)
    train(killed, 0, 1, 2)
    other.load_state_dict(killed.state_dict())
    assert train(other, 3).requests == [[1, 2, 3]]
    assert list(other.cells) == [0, 1, 2, 3]
    assert other.cells[1].tolist() == [[n, n, 1] for n in range(10)]


@pytest.mark.slow
def test_a_picture_of_hundreds_of_classes_has_the_size_of_one_of_a_few_dozen(tmp_path: Path):
    sizes = []
    for count in (MANY + 1, 200):
        file = confusion_png(
            tmp_path / f"{count}.png", np.eye(count, dtype=np.int64),
            [f"a class with a name of its own, number {n}" for n in range(count)], "validation",
        )  # fmt: skip
        header = file.read_bytes()[16:24]
        sizes.append((int.from_bytes(header[:4]), int.from_bytes(header[4:])))
    assert sizes[0] == sizes[1]
