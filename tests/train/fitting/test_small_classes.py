"""Classes with few training tiles, or none: what heads learn, and what is said of it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from accelerate import Accelerator

from featurestore.errors import FeatureStoreWarning
from featurestore.printing import Console
from train import probe
from train.config.load import load
from train.fitting.load import load_shards
from train.fitting.prepare import prepare_fit
from train.fitting.small_classes import few_by_fold
from train.fitting.trainers import build_trainer
from train.runtime.processes import Processes

CLASSES = ["Blood", "Fat", "Muscle", "Nerve"]
SOLVERS = {
    "adamw": ["optimizer=adamw", "learning_rate=0.05"],
    "sgd": ["optimizer=sgd", "learning_rate=0.5"],
    "lbfgs": ["optimizer=lbfgs"],
    "mlp": ["head=mlp", "hidden=8", "learning_rate=0.05"],
}


@pytest.fixture
def uneven(tmp_path: Path) -> list[str]:
    """Return arguments: 330 tiles to train on, 8 of Blood; Nerve is only validated on."""
    counts = {0: [8, 200, 122, 0], 1: [3, 70, 40, 12]}
    rng = np.random.default_rng(0)
    target = np.concatenate([np.repeat(np.arange(4), counts[fold]) for fold in counts])
    fold = np.repeat([0, 1], [sum(counts[0]), sum(counts[1])])
    number = np.arange(len(target))
    columns = {"slide_id": [f"s{n // 20}" for n in number], "x": number, "y": 0 * number}
    x = 6 * np.eye(4, 6)[target] + rng.normal(size=(len(target), 6))
    coverage = {f"roi_coverage_{n}": (target == i).astype(float) for i, n in enumerate(CLASSES)}
    pq.write_table(pa.table({**columns, **coverage, "fold": fold}), tmp_path / "tiles.parquet")
    pq.write_table(pa.table({**columns, "embedding": list(x)}), tmp_path / "embeddings.parquet")
    config = {
        "data": {"name": "uneven", "tiles": str(tmp_path / "tiles.parquet"),
                 "embeddings": str(tmp_path / "embeddings.parquet")},
        "class_indices": {name: index for index, name in enumerate(CLASSES)},
        "thresholds": dict.fromkeys(CLASSES, 0.5),
        "max_epochs": 60, "batch_size": 64, "patience": 60, "weight_decay": 1e-3,
        "tracking": {"enabled": False}, "output": str(tmp_path / "out"),
    }  # fmt: skip
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "none.yaml").write_text("{}")
    return [f"data={tmp_path / 'own.yaml'}", f"classes={tmp_path / 'none.yaml'}", "fold=1"]


def fitted(argv: list[str]) -> tuple[float, torch.Tensor]:
    """Train; return the accuracy on the classes that were trained on, and each head's loss."""
    config, processes = load(argv), Processes(Accelerator(cpu=True))
    inputs, job = prepare_fit(config, Console(quiet=True), processes=1)
    with inputs.locks:
        trainer = build_trainer(
            config, job.grid, load_shards(job.table, job.grid, config, processes), processes
        )
        for _ in trainer:
            pass
        loss, confusion = trainer.result().evaluate()
    counts = confusion.sum(dim=0)[:3].double()
    return float(counts.diagonal().sum() / counts.sum()), loss


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
def test_label_smoothing_leaves_accuracy_where_it_is(uneven: list[str], solver: str):
    """Whoever trains: one class is absent from training, another has 8 tiles of 330."""
    accuracy = {}
    for smoothing in (0.0, 0.1):
        argv = [*uneven, *SOLVERS[solver], f"label_smoothing={smoothing}"]
        with pytest.warns(FeatureStoreWarning) as heard:
            accuracy[smoothing], loss = fitted(argv)
        messages = [str(one.message) for one in heard if "few tiles" in str(one.message)]
        assert len(messages) == 1
        assert "Blood 8, Nerve 0 (validating on fold 1)" in messages[0]
        assert 0 < float(loss) < 1
    assert accuracy[0.1] >= accuracy[0.0] - 0.02
    assert accuracy[0.1] > 0.95


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::featurestore.errors.FeatureStoreWarning")
@pytest.mark.parametrize("form", ["ridge", "lda", "prototype", "knn"])
def test_heads_without_epochs_are_validated_without_it(uneven: list[str], form: str):
    """An absent class has a bias of minus infinity in some: the loss is a number all the same."""
    accuracy, loss = fitted([*uneven, f"probe={form}", "weight_decay=0.1", "label_smoothing=0.1"])
    assert accuracy > 0.95
    assert loss.isfinite().all()


@pytest.mark.slow
def test_a_fold_that_validates_nothing_is_refused(
    uneven: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    """Its loss would be zero over zero tiles, and training would end at once."""
    tiles = pq.read_table(tmp_path / "tiles.parquet")
    nerve = tiles["roi_coverage_Nerve"].to_numpy() > 0
    split = tiles.set_column(
        tiles.column_names.index("fold"), "fold", pa.array(nerve.astype(np.int64))
    )
    pq.write_table(split, tmp_path / "tiles.parquet")
    assert probe.main(uneven) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "No validation tile is of a class that is trained on" in error
    assert "12 validation tiles" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_heads_of_a_sweep_are_warned_of_once(uneven: list[str]):
    """By fold; folds that lack the same are named together."""
    argv = [*uneven[:2], "fold=all", "optimizer=lbfgs", "sweep.weight_decay=[0.01,0.1]"]
    with pytest.warns(FeatureStoreWarning) as heard:
        fitted(argv)
    [message] = [str(one.message) for one in heard if "few tiles" in str(one.message)]
    assert "few tiles to train on, the fewest of 2 settings: " in message
    assert "Blood 3 (validating on fold 0), Blood 8, Nerve 0 (validating on fold 1)" in message
    counts = np.array([[0, 9], [0, 9], [10, 90]])
    assert few_by_fold(counts, [2, 3, 4], ["a", "b"]) == "a 0, b 9 (validating on fold 2, 3)"
