"""Several encoders in one run: as each alone, on the same tiles, and compared."""

import gc
import json
import re
import weakref
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CLASSES, ROOT, launch_ranks
from sklearn.metrics import f1_score

from featurestore.console import plots
from train import probe, replay
from train.engine.shard import Shard
from train.evaluation.comparison import differences
from train.evaluation.estimates import estimate
from train.evaluation.leaderboard import Entry, leaderboard
from train.fitting import load
from train.models import checkpoint
from train.predictions.table import Predictions
from train.runtime.fit_state import FileCheckpointer
from train.runtime.run import Run
from train.tracking.mlflow_tracker import MlflowTracker

PROBE = str(ROOT / "train" / "probe.py")
TILES, SLIDES = 240, 12
RNG = np.random.default_rng(0)
TARGET = RNG.integers(2, size=TILES)
X = RNG.normal(size=(TILES, 6)) + TARGET[:, None]
KEYS = {
    "slide_id": [f"s{n * SLIDES // TILES:02d}" for n in range(TILES)],
    "x": list(range(TILES)),
    "y": [0] * TILES,
}
VECTORS = {"full": X.astype("float32"), "half.b": X[:, :2].astype("float32")}
LACKING = {"full": [3, 50], "half.b": [50, 100, 200]}


def written() -> list[str]:
    """Write a cohort with two encoders, each without some tiles; return the arguments of a fit."""
    fat = np.where(TARGET == 0, 0.9, 0.0)
    coverages = {"roi_coverage_Fat": fat, "roi_coverage_Muscle": 0.9 - fat}
    folds = [n % 3 for n in range(TILES)]
    pq.write_table(pa.table(KEYS | coverages | {"fold": folds}), "tiles.parquet")
    for name, vectors in VECTORS.items():
        table = pa.table(KEYS | {"embedding": list(vectors)})
        kept = np.setdiff1d(np.arange(TILES), LACKING[name])
        pq.write_table(table.take(pa.array(np.roll(kept, len(name)))), f"{name}.parquet")
    Path("own.yaml").write_text(
        "data: {name: own}\nlearning_rate: 0.05\nbatch_size: 64\nmax_epochs: 4\npatience: 4\n"
    )
    Path("none.yaml").write_text("{}")
    classes = [f"{key}.{name}={value}" for key, of in CLASSES.items() for name, value in of.items()]
    return ["data=own.yaml", "classes=none.yaml", *classes, "data.tiles=tiles.parquet",
            "data.embeddings={full: full.parquet, half.b: half.b.parquet}"]  # fmt: skip


@pytest.fixture
def argv(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the arguments of a fit that draws nothing of its cohort: it would take seconds."""
    monkeypatch.setattr(plots, "draw", lambda *_: [])
    return written()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """Return a folder in which both encoders have been trained, and the arguments of that."""
    home = tmp_path_factory.mktemp("encoders")
    with chdir(home), pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "draw", lambda *_: [])
        argv = [*written(), "tracking.enabled=false"]
        assert probe.main([*argv, "fold=2", "output=all"]) == 0
    yield home, argv


def rows(file: Path | str) -> list[dict[str, Any]]:
    table = json.loads(Path(file).read_text())
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


@pytest.mark.slow
def test_the_leaderboard_says_what_the_predictions_say(trained: tuple[Path, list[str]]):
    """Of the tiles that both encoders have, as scikit-learn sees them."""
    home = trained[0] / "all"
    kept = sorted(set(range(TILES)) - {3, 50, 100, 200})
    validated = [x for x in kept if x % 3 == 2]
    predicted, f1 = {}, {}
    for name in VECTORS:
        table = predicted[name] = pq.read_table(home / name / "predictions.parquet").sort_by("x")
        assert table["x"].to_pylist() == validated
        assert table["target"].to_pylist() == TARGET[validated].tolist()
        f1[name] = f1_score(table["target"], table["pred"], average="macro")
        assert checkpoint.load(home / name / "checkpoint.safetensors").encoder == name
    board = rows(home / "leaderboard.json")
    assert [row["encoder"] for row in board] == sorted(f1, key=f1.get, reverse=True)
    assert {row["encoder"]: row["f1_macro"] for row in board} == pytest.approx(f1)
    assert {row["encoder"]: row["numbers"] for row in board} == {"full": 6, "half.b": 2}
    best, other = (row["encoder"] for row in board)
    [difference] = [r for r in rows(home / "differences.json") if r["metric"] == "f1_macro"]
    assert (difference["encoder"], difference["other"]) == (best, other)
    assert difference["difference"] == pytest.approx(f1[best] - f1[other])
    two = [Predictions.from_table(predicted[name], ["Fat", "Muscle"]) for name in (other, best)]
    expected = differences(*two)["f1_macro"]
    assert (difference["low"], difference["high"]) == pytest.approx((expected.low, expected.high))
    assert (home / "encoders.png").read_bytes().startswith(b"\x89PNG")
    page = (home / "report.html").read_text()
    for words in ("Best encoder", "Differences between encoders", "half.b"):
        assert words in page
    assert not list((trained[0] / ".featurestore" / "fits").glob("*/"))  # nothing is left to resume


@pytest.mark.slow
def test_an_encoder_among_others_learns_what_it_learns_alone(
    trained: tuple[Path, list[str]], argv: list[str]
):
    alone = [*argv, "tracking.enabled=false", "fold=2", "output=alone", "data.encoder=half.b"]
    assert probe.main(alone) == 0
    files = [trained[0] / "all" / "half.b", Path("alone")]
    ours, theirs = (file / "checkpoint.safetensors" for file in files)
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [["fold=all", "sweep.learning_rate=[0.01,0.1]", "final=true"], ["fold=0", "head=mlp"]]
)
def test_whatever_trains_one_encoder_trains_several_one_after_another(
    argv: list[str],
    more: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """No two of them are in memory at once."""
    loaded: list[weakref.ref[Any]] = []
    resident = load.resident

    def watched(*given: Any) -> Shard:
        gc.collect()
        alive = [shard for ref in loaded if (shard := ref()) is not None]
        shard = resident(*given)
        assert all(other.shape[1] == shard.x.shape[1] for other in alive)
        loaded.append(weakref.ref(shard.x))
        return shard

    monkeypatch.setattr(load, "resident", watched)
    assert probe.main([*argv, *more, "tracking.enabled=false"]) == 0
    assert len(loaded) == (2 if "fold=all" in more else 4)
    assert "differences, on the same tiles" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["learning_rate=1e38"], ["Encoder full: Training diverged"]),
        (["sweep.tissue_prop_min=[0.1,0.2]"], ["the same tiles", "tissue_prop_min"]),
        (["data.snapshot=x"], ["A snapshot has the embeddings of one encoder", "data.encoder"]),
        (["data.encoder=ful"], ["There is no encoder 'ful'", "did you mean 'full'?"]),
        (["resume=true"], ["There is nothing to resume"]),
    ],
)
def test_what_is_refused_names_the_encoder(
    argv: list[str], more: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
):
    assert probe.main([*argv, "fold=2", *more, "tracking.enabled=false"]) == 2
    error = capsys.readouterr().err
    assert all(each in error for each in words), error


@pytest.mark.slow
def test_an_encoder_with_faults_is_refused_before_another_is_trained(
    argv: list[str], capsys: pytest.CaptureFixture[str]
):
    table = pa.table(KEYS | {"embedding": [[np.nan, 1.0], *[[0.0, 1.0]] * (TILES - 1)]})
    pq.write_table(table, "half.b.parquet")
    before = set(Path().rglob("*"))
    assert probe.main([*argv, "fold=2", "output=all", "tracking.enabled=false"]) == 2
    assert "error: Encoder half.b: " in capsys.readouterr().err
    left = {path for path in Path().rglob("*") if path.is_file()} - before
    assert not [path for path in left if path.suffix in (".npy", ".safetensors", ".png")], left


@pytest.mark.slow
def test_a_checkpoint_picks_its_encoder(
    trained: tuple[Path, list[str]], argv: list[str], capsys: pytest.CaptureFixture[str]
):
    argv = [*argv, "tracking.enabled=false", "fold=2", "mode=validate"]
    named = f"checkpoint={trained[0] / 'all' / 'half.b' / 'checkpoint.safetensors'}"
    assert probe.main([*argv, named, "output=again"]) == 0
    files = ("again", trained[0] / "all" / "half.b")
    again, first = (pq.read_table(Path(file, "predictions.parquet")) for file in files)
    assert again.sort_by("x")["pred"] == first.sort_by("x")["pred"]
    assert probe.main([*argv, named, "data.encoder=full"]) == 2
    assert "was trained on the embeddings of half.b" in capsys.readouterr().err
    unnamed = replace(checkpoint.load(trained[0] / "all" / "full"), encoder=None)
    checkpoint.save(Path("unnamed.safetensors"), unnamed)
    assert probe.main([*argv, "checkpoint=unnamed.safetensors"]) == 2
    assert "set data.encoder to one of them" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_encoder_that_it_was_at(
    trained: tuple[Path, list[str]],
    argv: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """What had ended is gone through, not trained again; MLflow knows one run and one of each.

    Each of these is replayed: on its own snapshot, once its tiles have changed.
    """
    uri = f"sqlite:///{Path('mlflow.db').absolute()}"  # MLflow keeps stores by name
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    models: list[str | None] = []  # to export one takes seconds
    monkeypatch.setattr(MlflowTracker, "model", lambda *given: models.append(given[3]))
    monkeypatch.setattr(Run, "visible", False)  # nor is a page written
    save, saved = FileCheckpointer.save, []

    def killed(self: FileCheckpointer) -> None:
        save(self)
        saved.append(self.run.config.data.encoder)
        if saved.count("half.b") == 2:
            raise KeyboardInterrupt

    argv = [*argv, "fold=2", "output=cut"]
    with monkeypatch.context() as patch:
        patch.setattr(FileCheckpointer, "save", killed)
        assert probe.main(argv) == 130
    saved.clear()
    with monkeypatch.context() as patch:
        patch.setattr(FileCheckpointer, "save", lambda self: saved.append(save(self)))
        assert probe.main([*argv, "resume=true"]) == 0
    assert len(saved) == 2  # of four epochs of the second encoder
    assert models == ["tissue-probe-full", "tissue-probe-full", "tissue-probe-half.b"]
    for name in VECTORS:
        cut, uncut = (home / name / "checkpoint.safetensors" for home in (
            Path("cut"), trained[0] / "all"
        ))  # fmt: skip
        assert cut.read_bytes() == uncut.read_bytes()
    client = mlflow.MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("tissue-probe").experiment_id])
    [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run is not parent]
    assert {run.info.run_name for run in children} == set(VECTORS)
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert len(children) == 2
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in children:
        assert len(client.get_metric_history(run.info.run_id, "validation/loss")) == 4
    board = rows(client.download_artifacts(parent.info.run_id, "leaderboard.json"))
    assert parent.data.params["best_encoder"] == board[0]["encoder"]
    value = parent.data.metrics[f"encoder/{board[0]['encoder']}/validation/f1_macro"]
    assert value == pytest.approx(board[0]["f1_macro"])
    pair = f"difference/{board[0]['encoder']}/{board[1]['encoder']}/validation/f1_macro"
    assert {pair, f"{pair}_low", f"{pair}_high"} <= set(parent.data.metrics)
    run_of = {run.info.run_name: run.info.run_id for run in children}
    named = client.get_run(run_of["half.b"]).data.params["tracking.model"]
    assert named == "tissue-probe-half.b"
    assert replay.main([parent.info.run_id]) == 2
    check_replays(run_of["half.b"], run_of["full"], capsys)


def check_replays(run: str, other: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Replay the run of half.b, as it was, and on its own snapshot once its tiles have changed."""
    assert replay.main([run]) == 0
    pq.write_table(pq.read_table("tiles.parquet").slice(5), "tiles.parquet")
    capsys.readouterr()
    assert replay.main([run]) == 3
    [own] = re.findall(r"here still: replay it with\s+(data.snapshot=\w+)", capsys.readouterr().out)
    assert replay.main([run, own]) == 0
    assert replay.main([run, f"data.snapshot={other}"]) == 2
    assert "was not made for encoder half.b" in capsys.readouterr().err


@pytest.mark.slow
def test_two_ranks_compare_as_one_process(trained: tuple[Path, list[str]]):
    home, argv = trained
    two = launch_ranks(2, [PROBE, *argv, "fold=2"], home)
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("differences, on the same tiles") == 1
    for row in rows(home / "all" / "leaderboard.json"):
        assert re.search(rf"{row['encoder']} .* {row['f1_macro']:.4f} ", two.stdout)
    [row] = [r for r in rows(home / "all" / "differences.json") if r["metric"] == "f1_macro"]
    ends = f"{row['low']:+.4f} – {row['high']:+.4f}"
    assert re.search(rf"{row['difference']:+.4f} .* {ends} ".replace("+", "[+]"), two.stdout)


def test_encoders_are_ranked_by_macro_f1_whatever_order_their_tiles_have():
    """Each pair is compared on the tiles by their keys; equally good ones differ by nothing."""
    table = pa.table({
        "slide_id": ["a", "a", "b", "b"], "x": [0, 1, 0, 1], "y": [0] * 4,
        "target": [0, 1, 0, 1],
        "prob_Fat": [0.9, 0.2, 0.4, 0.3], "prob_Muscle": [0.1, 0.8, 0.6, 0.7],
    })  # fmt: skip
    right = [0.9, 0.1, 0.9, 0.1]
    better = table.set_column(4, "prob_Fat", pa.array(right)).set_column(
        5, "prob_Muscle", pa.array([1 - p for p in right])
    )
    tables = {"one": table, "two": table.take([3, 1, 0, 2]), "best": better.take([2, 0, 3, 1])}
    predictions = {n: Predictions.from_table(t, ["Fat", "Muscle"]) for n, t in tables.items()}
    board = leaderboard("oof", [Entry(n, p, estimate(p)) for n, p in predictions.items()])
    assert [entry.encoder for entry in board.entries] == ["best", "one", "two"]
    accuracy = {(d.encoder, d.other): d.metrics["accuracy"].value for d in board.differences}
    assert accuracy == {("best", "one"): 0.25, ("best", "two"): 0.25, ("one", "two"): 0}
    assert [d.test.only_other for d in board.differences] == [1, 1, 0]
