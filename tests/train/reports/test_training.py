"""A run says what was trained: page, parameters, checkpoint, export and terminal, of every kind."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from html import unescape
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import TABLES
from matplotlib.figure import Figure
from refused import arguments
from test_html import Reader

from train import export, probe
from train.config.hyperparameters import HYPERPARAMETERS, MODEL, PROBE, unused
from train.config.schema import PROBES, Config
from train.config.sections import Evidence, Sweep
from train.config.sweep import SLIDES, chosen_config, settings, trained_config
from train.config.text import text
from train.engine.heads import train_mask
from train.engine.shard import DROPPED
from train.fitting import autograd, trainers
from train.models import checkpoint
from train.runtime import inputs
from train.tracking.runs import RunRecord, trained_values
from train.tracking.tracker import NullTracker

FIT = {"optimizer", "learning_rate", "weight_decay", "label_smoothing", "batch_size",
       "max_epochs", "monitor", "patience", "min_delta", "hidden", "neighbours",
       "schedule", "warmup_epochs", "neighbour_weights", "neighbour_metric"}  # fmt: skip
BUILDERS = ("MiniBatchTrainer", "LbfgsTrainer", "ClosedFormTrainer", "NearestNeighbours",
            "AutogradTrainer")  # fmt: skip


FITTED = Callable[..., "Said"]


class Recorder(NullTracker):
    """Keeps parameters, of which none may change, as MLflow has it."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    @contextmanager
    def child(self, name: str) -> Iterator[None]:
        """Keep what is recorded meanwhile apart."""
        pairs, self.values = self.values, {}
        yield
        self.values = pairs

    def params(self, values: Mapping[str, Any]) -> None:
        """Keep parameters."""
        for key, value in values.items():
            assert self.values.setdefault(key, str(value)) == str(value), key


class Said:
    """What a run has said of its training, place by place."""

    def __init__(self, params: dict[str, str], out: str) -> None:
        page = Path("out/report.html").read_text()
        model = page.partition('id="model"')[2].partition("</section>")[0]
        cells = [unescape(cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", model)]
        self.page = dict(pairwise(cells))
        self.text, self.params, self.terminal = Reader(page).text, params, out
        self.model = self.card = None
        file = Path("out") / checkpoint.FILE
        if file.exists():
            model = checkpoint.load(file)
            rules = export.rules(model.training, None)
            self.model = export.described("file", model, rules, None)
            self.card = export.card("file", model, rules, None)

    def values(self, key: str) -> set[str | None]:
        """Return what each place says of a key, None where one says nothing."""
        recorded_values = {self.page.get(key), self.params.get(key)}
        if self.model:
            recorded_values.add(self.model["training"]["settings"].get(key))
            line = re.search(rf"^- {key}: (.*)$", self.card or "", re.MULTILINE)
            recorded_values.add(line and line[1])
        return {None if value is None else str(value) for value in recorded_values}


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list of all trainers that are built, the last one at the end."""
    trained: list[Any] = []
    for name in BUILDERS:
        module = autograd if name == "AutogradTrainer" else trainers
        build = getattr(module, name)

        def keep(*given: Any, build: Any = build) -> Any:
            trained.append(build(*given))
            return trained[-1]

        monkeypatch.setattr(module, name, keep)
    return trained


def no_picture(file: Path | BytesIO) -> None:
    """Write nothing where a picture would be drawn, which takes most of the time of a tiny fit."""
    if isinstance(file, Path):
        file.write_bytes(b"")


@pytest.fixture
def fitted(artifacts: TABLES, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Return a function that fits and returns what was said."""

    monkeypatch.setattr(Figure, "savefig", lambda _, file, **__: no_picture(file))

    def fit(*argv: str, fat: list[float] | None = None) -> Said:
        tracker = Recorder()
        monkeypatch.setattr(inputs, "open_tracker", lambda *_: tracker)
        given = arguments(
            artifacts(fat and {"roi_coverage_Fat": fat}),
            "tracking.enabled=false",
            "output=out",
            *argv,
        )
        assert probe.main(given) == 0
        return Said(tracker.values, capsys.readouterr().out)

    return fit


def registered(trainer: Any, key: str) -> float:
    """Return a value by which the head was trained whose weights the checkpoint has."""
    weights = trainer.result().weights
    if weights is None:  # of a network, whose optimizer knows
        group = trainer.optimizer.param_groups[0]
        return {"learning_rate": group["lr"], "weight_decay": group["weight_decay"],
                "label_smoothing": trainer.smoothing}[key]  # fmt: skip
    saved = checkpoint.load(Path("out") / checkpoint.FILE).network.get_submodule("head").weight
    same = [torch.allclose(one.float(), saved) for one in weights.weight]
    [value] = getattr(trainer.problem.heads, key)[torch.tensor(same)].unique().tolist()
    return float(value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "acting", "untouched"),
    [
        (["fold=1"], "optimizer learning_rate weight_decay label_smoothing schedule warmup_epochs "
         "batch_size max_epochs "
                     "monitor patience min_delta", None),
        (["fold=1", "head=mlp", "hidden=8", "optimizer=sgd", "monitor=train/loss"],
         "optimizer learning_rate weight_decay label_smoothing schedule warmup_epochs "
         "batch_size max_epochs monitor "
         "patience min_delta hidden", "best/validation/*"),
        (["fold=all", "optimizer=lbfgs", "sweep.weight_decay=[0.5,0.01]"],
         "optimizer weight_decay label_smoothing max_epochs", None),
        (["fold=1", "optimizer=lbfgs"], "optimizer weight_decay label_smoothing max_epochs",
         "best/oof/*"),
        (["fold=all", "probe=ridge", "weight_decay=0.3"], "weight_decay", "best/oof/*"),
        (["fold=all", "probe=prototype", "final=true"], "", "best/oof/*"),
        (["fold=all", "probe=knn", "neighbours=3"],
         "neighbours neighbour_weights neighbour_metric", "best/oof/*"),
        (["fold=all", "final=true", "sweep.learning_rate=[0.5,0.0001]",
          "sweep.label_smoothing=[0.0,0.2]"],
         "optimizer learning_rate weight_decay label_smoothing schedule warmup_epochs "
         "batch_size max_epochs", None),
    ],
)  # fmt: skip
def test_what_is_said_was_trained(
    argv: list[str], acting: str, untouched: str | None, built: list[Any], fitted: FITTED
):
    """What acts is said with the trainer's own value; what does nothing is not there at all."""
    recorded = fitted(*argv)
    keys = set(acting.split())
    final = "final=true" in argv
    recorded_of_folds = {"monitor", "patience", "min_delta", "max_epochs"} if final else set()
    for key in FIT - keys - recorded_of_folds:
        assert recorded.values(key) == {None}, key
    trainer = built[-1]
    for key in keys & {"learning_rate", "weight_decay", "label_smoothing"}:
        [value] = recorded.values(key)
        assert value is not None
        assert float(value) == pytest.approx(registered(trainer, key)), key
    for key in keys & {"batch_size", "max_epochs", "optimizer", "monitor"} - recorded_of_folds:
        assert recorded.values(key) == {str(getattr(trainer.plan, key))}, key
    if final and recorded.model and keys:
        assert recorded.model["training"]["settings"]["max_epochs"] == trainer.plan.max_epochs
    assert recorded.page["untouched number"].startswith(untouched or "none: ")
    assert recorded.params["untouched"] == (untouched or "none")
    for what in ("registered head", "untouched number"):
        assert f"{what}: {recorded.page[what]}" in recorded.terminal
        assert recorded.card is None or f"- {what}: {recorded.page[what]}" in recorded.card


@pytest.mark.slow
def test_the_rules_are_those_of_the_tiles_that_were_trained_on(
    artifacts: TABLES, built: list[Any], fitted: FITTED
):
    """A sweep of rules, then a final head and its test: both sides follow the chosen ones."""
    fat = [(0.0, 0.9, 0.0, 0.6)[n % 4] for n in range(12)]
    for name, uri in artifacts({"roi_coverage_Fat": fat, "fold": None}).items():
        table = pq.read_table(uri)
        moved = pa.array([f"t{slide}" for slide in table["slide_id"].to_pylist()])
        pq.write_table(table.set_column(0, "slide_id", moved), f"test_{name[5:]}.parquet")
    tested = []

    def evaluated(this: Any, log: Any, job: Any) -> None:
        tested.append(len(job.tiles.keys))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "evaluate_model", evaluated)
        recorded = fitted(
            "fold=all", "final=true", "thresholds.Fat=0.3", "sweep.thresholds.Fat=[0.5,0.8]",
            "sweep.train_fraction=[0.5,1.0]", "data.test_tiles=test_tiles.parquet",
            "data.test_embeddings=test_embeddings.parquet", "leakage=warn",
            fat=fat,
        )  # fmt: skip
    assert recorded.model
    assert recorded.card
    threshold = recorded.model["rules"]["thresholds"]["Fat"]
    kept = sum(value == 0 or value >= threshold for value in fat)
    share = recorded.model["training"]["settings"]["train_fraction"]
    problem = built[-1].problem
    shard, [variant] = problem.train, problem.heads.variant.tolist()
    assert int((shard.fold[variant] != DROPPED).sum()) == kept
    assert len(shard.cluster[train_mask(shard, problem.heads)[0]].unique()) == 4 * share
    assert tested == [kept]
    assert threshold in (0.5, 0.8)
    assert recorded.params["thresholds.Fat"] == str(threshold)
    assert recorded.values("train_fraction") == {str(share)}
    assert f"| Fat | 0 | {threshold} |" in recorded.card
    assert re.search(rf"\sFat\s+0\s+{threshold}\s", recorded.text)
    # The test tiles are those that were trained on, under other names; all are, by one setting.
    assert recorded.page["untouched number"].startswith("none: the model was trained on 12 embed")


SWEPT = Config(
    class_indices={"Fat": 0, "Muscle": 1}, thresholds={"Fat": 0.5, "Muscle": 0.5},
    sweep=Sweep(
        learning_rate=[0.1, 0.2], weight_decay=[0.0, 0.5], label_smoothing=[0.0, 0.1],
        train_fraction=[0.5, 1.0], thresholds={"Fat": [0.1, 0.2]}, tissue_prop_min=[0.0, 0.3],
        kfold_strategy=["stratified", "stratified_group"], neighbours=[3, 5],
        neighbour_weights=["uniform", "distance"], neighbour_metric=["euclidean", "cosine"],
        shots=[1, 2], draw=[0, 1],
    ),
)  # fmt: skip


def test_every_key_that_is_swept_has_the_value_of_its_setting():
    """The configuration of a setting has that one alone; a run's record tells it by its name."""
    sweep = vars(SWEPT.sweep)
    assert all(sweep.values()), "a key of the sweep is not tried here"
    every = settings(SWEPT)
    assert len(every) == 2**12
    for setting in (every[0], every[77], every[-1]):
        trained = trained_config(SWEPT, setting)
        for key, value in setting.overrides.items():
            section, _, name = key.partition(".")
            if key in SLIDES:
                assert getattr(trained.sweep, key) == [value]
            else:
                assert (getattr(trained, section)[name] if name else getattr(trained, key)) == value
        assert trained.thresholds["Muscle"] == 0.5
        [alone] = settings(trained)
        for key in ("learning_rate", *SLIDES):
            assert getattr(alone, key) == getattr(setting, key)
        assert chosen_config(SWEPT, setting.name) == trained
        record = RunRecord("1", None, text(SWEPT), {}, {}, {"best_setting": setting.name})
        names = ("thresholds", "tissue_prop_min", "kfold_strategy", "weight_decay")
        assert trained_values(record, names) == {name: getattr(trained, name) for name in names}
    assert chosen_config(SWEPT, None) is SWEPT


def test_every_way_to_train_has_keys_that_act():
    """And no key of training is listed as acting that the configuration does not have."""
    assert {"logistic", *PROBE} == set(PROBES)
    assert set(HYPERPARAMETERS) | set(MODEL) <= {field.name for field in fields(Config)}
    assert set(HYPERPARAMETERS) == FIT
    for mode in ("validate", "test", "predict"):
        assert set(unused(Config(mode=mode))) == {*FIT, *MODEL}


def test_the_card_names_what_intervals_resample():
    metrics = {
        "best/oof/f1_macro": 0.5,
        "best/oof/f1_macro_low": 0.4,
        "best/oof/f1_macro_high": 0.6,
    }
    for config, over in (
        (text(Config(evidence=Evidence("patient_id"))), " over patients"),
        (text(Config()), " over slides"), ("seed: 0\n", ""), ("", ""),
    ):  # fmt: skip
        record = RunRecord("1", None, config, metrics, {}, {})
        table = export.figure_table(metrics, export.units_of(record))
        assert table.startswith(f"| split | figure | value | 95 %{over} |")
        assert "| oof | f1_macro | 0.5000 | 0.4000 .. 0.6000 |" in table
