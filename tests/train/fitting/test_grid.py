"""Heads side by side from the command line: what is trained, recorded, predicted and refused."""

import json
import shutil
import sys
from itertools import product
from pathlib import Path

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT, launch, launch_ranks
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from train import probe
from train.config import load
from train.config.store import open_store, with_rules
from train.config.sweep import rule_variants
from train.fitting.prepare import choose_grid
from train.models import checkpoint

PROBE = str(ROOT / "train" / "probe.py")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, digits_cache: Path) -> Path:
    """Return a folder in which four settings were trained on five folds, and a final head."""
    folder = tmp_path_factory.mktemp("sweep")
    shutil.copytree(digits_cache, folder / ".featurestore")
    done = launch(
        [sys.executable, PROBE, "fold=all", "sweep.learning_rate=[0.002,0.02]",
         "sweep.label_smoothing=[0.0,0.1]", "final=true", "max_epochs=12", "output=out"],
        folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder / "stdout.txt").write_text(done.stdout)
    return folder


@pytest.fixture(scope="module")
def runs(home: Path) -> list:
    """Return the parent run and its children."""
    client = mlflow.MlflowClient(f"sqlite:///{home}/mlflow.db")
    experiment = client.get_experiment_by_name("tissue-probe").experiment_id
    children = client.search_runs([experiment], order_by=["attributes.start_time ASC"])
    return [children[0], *(r for r in children if r.data.tags.get("mlflow.parentRunId"))]


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("digits_made")]


def test_every_tile_is_predicted_by_the_head_that_did_not_see_it(home: Path, runs: list):
    table = pq.read_table(home / "out" / "oof_predictions.parquet")
    assert len(table) == 1430
    assert table.column_names[:4] == ["slide_id", "x", "y", "target"]
    truth, guess = table["target"].to_numpy(), table["pred"].to_numpy()
    shares = np.stack([table[f"prob_{digit}"].to_numpy() for digit in range(10)], axis=1)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(shares.argmax(axis=1), guess)
    fold, metrics = table["fold"].to_numpy(), runs[0].data.metrics
    by_fold = [(truth[fold == k], guess[fold == k]) for k in range(5)]
    f1 = [f1_score(*pair, average="macro") for pair in by_fold]
    assert metrics["best/validation/f1_macro"] == pytest.approx(np.mean(f1), abs=1e-9)
    assert metrics["best/validation/f1_macro_sd"] == pytest.approx(np.std(f1, ddof=1), abs=1e-9)
    assert metrics["best/validation/accuracy"] == pytest.approx(
        np.mean([accuracy_score(*pair) for pair in by_fold])
    )
    assert (
        metrics["best/validation/f1_macro_low"]
        < f1_score(truth, guess, average="macro")
        < metrics["best/validation/f1_macro_high"]
    )


def test_settings_are_runs_below_one_run(home: Path, runs: list):
    client = mlflow.MlflowClient(f"sqlite:///{home}/mlflow.db")
    parent, *children = runs
    seen = {
        (float(r.data.params["learning_rate"]), float(r.data.params["label_smoothing"]))
        for r in children
    }
    assert seen == set(product([0.002, 0.02], [0.0, 0.1]))
    assert {r.data.tags["mlflow.parentRunId"] for r in children} == {parent.info.run_id}
    [best] = [r for r in children if r.data.params["best"] == "True"]
    assert best.info.run_name == parent.data.params["best_setting"]
    scores = [r.data.metrics["validation/f1_macro"] for r in children]
    assert best.data.metrics["validation/f1_macro"] == max(scores)
    for run in children:
        folds = [run.data.metrics[f"fold{k}/validation/f1_macro"] for k in range(5)]
        assert run.data.metrics["validation/f1_macro"] == pytest.approx(np.mean(folds))
        of_classes = [run.data.metrics[f"mean/validation/f1/{digit}"] for digit in range(10)]
        assert np.mean(of_classes) == pytest.approx(np.mean(folds))
        assert len(run.data.metrics) < 40
        file = client.download_artifacts(run.info.run_id, "metrics.json")
        every = dict(json.loads(Path(file).read_text())["data"])
        by_fold = [every[f"fold{k}/validation/f1/3"] for k in range(5)]
        assert of_classes[3] == pytest.approx(np.mean(by_fold))


def test_the_final_head_alone_is_registered_and_tested_once(home: Path, runs: list):
    client = mlflow.MlflowClient(f"sqlite:///{home}/mlflow.db")
    [version] = client.search_model_versions("name='tissue-probe'")
    assert version.run_id == runs[0].info.run_id
    assert runs[0].data.metrics["best/test/accuracy"] > 0.8
    assert len(pq.read_table(home / "out" / "predictions.parquet")) == 367
    table = json.loads(
        Path(client.download_artifacts(runs[0].info.run_id, "settings.json")).read_text()
    )
    assert len(table["data"]) == 4
    files = {file.path for file in client.list_artifacts(runs[0].info.run_id)}
    assert {
        "settings.png", "learning_rate.png", "label_smoothing.png", "oof_predictions.parquet",
        "predictions.parquet",
    } <= files  # fmt: skip


def test_the_registered_weights_take_embeddings_as_they_are(home: Path):
    """The standardisation of the fit is in the weights; another mode finds the same figures."""
    done = launch(
        [sys.executable, PROBE, "mode=test", "checkpoint=models:/tissue-probe/1",
         "output=again"], home,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ours, theirs = (pq.read_table(home / f / "predictions.parquet") for f in ("out", "again"))
    assert ours.equals(theirs)


@pytest.mark.parametrize(("optimizer", "ranks"), [("adamw", 2), ("lbfgs", 4)])
def test_processes_give_what_one_gives(
    optimizer: str, ranks: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    argv = ["fold=[0,3]", "sweep.weight_decay=[0.0,0.1]", "max_epochs=4",
            "sweep.train_fraction=[0.3,1.0]", f"optimizer={optimizer}", "calibrate=true",
            "final=true", "tracking.enabled=false"]  # fmt: skip
    assert probe.main([*argv, "output=one"]) == 0
    assert "train_fraction" in capsys.readouterr().out
    done = launch_ranks(ranks, [PROBE, *argv, "output=many"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "train_fraction" in done.stdout
    one, two = (pq.read_table(f"{name}/oof_predictions.parquet") for name in ("one", "many"))
    assert len(one) == 2 * 286
    assert one.drop_columns([f"prob_{d}" for d in range(10)]).equals(
        two.drop_columns([f"prob_{d}" for d in range(10)])
    )
    tested = [pq.read_table(f"{name}/predictions.parquet") for name in ("one", "many")]
    assert tested[0]["x"].equals(tested[1]["x"])
    for digit in range(10):
        np.testing.assert_allclose(one[f"prob_{digit}"], two[f"prob_{digit}"], atol=1e-4)
        held_out = [table[f"prob_{digit}"] for table in tested]
        np.testing.assert_allclose(*held_out, atol=1e-4)


def test_variants_of_the_rules_are_those_of_the_views(capsys: pytest.CaptureFixture[str]):
    """A head of a grid sees the tiles that its own rules keep, and no others."""
    from featurestore.snapshots.build import materialise

    settled = load.load(
        ["fold=all", "sweep.thresholds.1=[0.0,0.3]", "sweep.tissue_prop_min=[0.2,0.3]",
         "sweep.kfold_strategy=[stratified,stratified_group]", "tracking.enabled=false"]
    )  # fmt: skip
    store = open_store(settled)
    snapshots = [materialise(with_rules(store, rules)) for rules in rule_variants(settled)]
    assert len(snapshots) == 8
    job = choose_grid(snapshots, settled)
    head_grid, table = job.grid, job.table
    assert head_grid is not None
    assert table is not None
    assert len(head_grid.heads) == 8 * 5
    for variant, snapshot in enumerate(snapshots):
        keys = snapshot.fold_set().keys
        kept = table.fold[:, variant] >= 0
        rows = table.keys["row"].to_numpy()[kept]
        folds = table.fold[kept, variant]
        np.testing.assert_array_equal(np.sort(keys["row"].to_numpy()), rows)
        by_row = dict(zip(keys["row"].to_pylist(), keys["fold"].to_pylist(), strict=True))
        assert [by_row[row] for row in rows.tolist()] == folds.tolist()


def test_shares_of_slides_are_nested_and_never_empty():
    settled = load.load(
        ["fold=all", "sweep.train_fraction=[0.01,0.1,0.5,1.0]", "tracking.enabled=false"]
    )
    from featurestore.snapshots.build import materialise

    snapshot = materialise(open_store(settled))
    head_grid = choose_grid([snapshot], settled).grid
    assert head_grid is not None
    slides = head_grid.counts[:, 1].reshape(4, 5)
    assert slides[0].tolist() == [1] * 5
    assert slides[1].tolist() == [2] * 5  # a tenth of eleven writers, rounded up
    assert slides[3].tolist() == [11] * 5
    assert (np.diff(head_grid.counts[:, 0].reshape(4, 5), axis=0) > 0).all()


@pytest.mark.parametrize("fold", ["0", "[0]"])
@pytest.mark.parametrize(
    ("normalize", "calibrate"), [("none", True), ("zscore", True), ("l2", False)]
)
def test_the_checkpoint_takes_embeddings_as_they_are(normalize: str, calibrate: bool, fold: str):
    """Whatever a fit does to embeddings is in the network, of one head as of a grid."""
    from featurestore.snapshots.build import materialise

    argv = [f"fold={fold}", f"normalize={normalize}", "max_epochs=2", "tracking.enabled=false",
            f"calibrate={calibrate}", "output=out"]  # fmt: skip
    assert probe.main(argv) == 0
    trained = checkpoint.load(Path("out"))
    network = trained.network
    assert (trained.spec.temperature != 1) == calibrate
    name = "predictions" if fold == "0" else "oof_predictions"
    table = pq.read_table(f"out/{name}.parquet").sort_by(
        [(key, "ascending") for key in ("slide_id", "x", "y")]
    )
    tiles = materialise(open_store(load.load(argv))).fit_set(0)
    held = np.asarray(tiles.keys["split"]) == "validation"
    x = tiles.matrix.read_rows(tiles.keys["row"].to_numpy()[held])
    shares = np.stack([table[f"prob_{digit}"].to_numpy() for digit in range(10)], axis=1)
    np.testing.assert_allclose(network(torch.from_numpy(x)).numpy(), shares, rtol=0, atol=1e-6)


def test_the_leak_gap_and_the_curve_of_label_efficiency(capsys: pytest.CaptureFixture[str]):
    """The known leak of the digits, from one pass; pictures of each axis."""
    argv = ["fold=all", "sweep.kfold_strategy=[stratified,stratified_group]",
            "sweep.train_fraction=[0.3,1.0]", "probe=ridge", "weight_decay=0.1",
            "tracking.enabled=false", "output=out"]  # fmt: skip
    assert probe.main(argv) == 0
    output = capsys.readouterr().out
    gap = float(output.split("leak gap: ")[1].split()[0])
    assert 0.01 < gap < 0.1
    for name in ("kfold_strategy", "train_fraction", "settings"):
        assert Path(f"out/{name}.png").read_bytes().startswith(b"\x89PNG")


def test_tiles_to_review_are_the_least_sure():
    argv = ["fold=4", "abstain_below=0.9", "max_epochs=5", "tracking.enabled=false", "output=out"]
    assert probe.main(argv) == 0
    table, review = (pq.read_table(f"out/{n}.parquet") for n in ("predictions", "review"))
    sure = np.max([table[f"prob_{digit}"].to_numpy() for digit in range(10)], axis=0)
    assert 0 < len(review) == (sure < 0.9).sum()
    np.testing.assert_array_equal(review["confidence"], np.sort(sure)[: len(review)])


@pytest.mark.parametrize(
    ("name", "least"), [("ridge", 0.93), ("lda", 0.94), ("prototype", 0.85), ("knn", 0.96)]
)
def test_probes_without_iterations(name: str, least: float):
    argv = ["fold=all", f"probe={name}", "weight_decay=0.01", "neighbours=5",
            "tracking.enabled=false", "output=out"]  # fmt: skip
    assert probe.main(argv) == 0
    table = pq.read_table("out/oof_predictions.parquet")
    assert len(table) == 1430
    assert np.mean(table["pred"].to_numpy() == table["target"].to_numpy()) > least
    assert Path("out/checkpoint.safetensors").exists() == (name != "knn")


@pytest.mark.parametrize("name", ["knn", "prototype"])
def test_baselines_are_tested_on_held_out_tiles(name: str):
    """By all folds together, as the best setting says: what scikit-learn predicts."""
    from featurestore.snapshots.build import materialise

    swept = ["sweep.neighbours=[1,5]", "sweep.neighbour_weights=[uniform,distance]"]
    argv = ["fold=[0,1]", f"probe={name}", *(swept if name == "knn" else []), "final=true",
            "tracking.enabled=false", "output=out"]  # fmt: skip
    assert probe.main(argv) == 0
    snapshot = materialise(open_store(load.load(argv)))
    (x, y), (held, truth) = (
        (tiles.matrix.read_rows(tiles.keys["row"].to_numpy()).astype(float),
         tiles.keys["target"].to_numpy())
        for tiles in (snapshot.fold_set(), snapshot.test_set())
    )  # fmt: skip
    scale = StandardScaler().fit(x)
    models = [NearestCentroid()] if name == "prototype" else [
        KNeighborsClassifier(k, weights=weights)
        for k, weights in product([1, 5], ["uniform", "distance"])
    ]  # fmt: skip
    table = pq.read_table("out/predictions.parquet")
    np.testing.assert_array_equal(table["target"], truth)
    differ = [
        (model.fit(scale.transform(x), y).predict(scale.transform(held)) != table["pred"]).sum()
        for model in models
    ]
    assert min(differ) <= 1


def test_streamed_neighbours_of_two_processes_are_the_neighbours(tmp_path: Path):
    argv = ["fold=[0,3]", "probe=knn", "tracking.enabled=false"]
    assert probe.main([*argv, "output=one"]) == 0
    done = launch_ranks(2, [PROBE, *argv, "stream=always", "output=two"], tmp_path)
    assert done.returncode == 0, done.stderr
    one, two = (pq.read_table(f"{folder}/oof_predictions.parquet") for folder in ("one", "two"))
    for digit in range(10):
        np.testing.assert_allclose(one[f"prob_{digit}"], two[f"prob_{digit}"], atol=1e-6)


def test_embeddings_on_disk_teach_as_much():
    """Another order of the same tiles."""
    for where in ("never", "always"):
        argv = ["fold=4", f"stream={where}", "tracking.enabled=false", f"output={where}"]
        assert probe.main(argv) == 0
    hits = {}
    for where in ("never", "always"):
        table = pq.read_table(f"{where}/predictions.parquet")
        hits[where] = np.mean(table["pred"].to_numpy() == table["target"].to_numpy())
    assert hits["never"] > 0.95
    assert abs(hits["never"] - hits["always"]) < 0.02


def test_the_final_head_is_solved_to_the_optimum_of_all_tiles():
    """At most one of the held-out predictions differs from scikit-learn's."""
    from featurestore.snapshots.build import materialise

    argv = ["fold=[0,1]", "optimizer=lbfgs", "weight_decay=0.01", "final=true",
            "tracking.enabled=false", "output=out"]  # fmt: skip
    assert probe.main(argv) == 0
    snapshot = materialise(open_store(load.load(argv)))
    (x, y), (held, _) = (
        (tiles.matrix.read_rows(tiles.keys["row"].to_numpy()).astype(float),
         tiles.keys["target"].to_numpy())
        for tiles in (snapshot.fold_set(), snapshot.test_set())
    )  # fmt: skip
    scale = StandardScaler().fit(x)
    weights = compute_sample_weight("balanced", y)
    theirs = LogisticRegression(C=1 / (0.01 * weights.sum()), tol=1e-8, max_iter=5000)
    expected = theirs.fit(scale.transform(x), y, weights).predict(scale.transform(held))
    table = pq.read_table("out/predictions.parquet")
    assert (table["pred"].to_numpy() != expected).sum() <= 1


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["fold=[0,9]"], ["Fold 9", "folds 0, 1, 2, 3, 4"]),
        (["fold=some"], ["fold=some", "fold=all"]),
        (["fold=[0,a]"], ["fold is not a whole number, all, a list", "fold=[0,1,4]"]),
        (["fold=all", "head=mlp"], ["Only linear heads", "head=linear"]),
        (["fold=all", "mode=validate", "checkpoint=x"], ["takes one fold", "fold=4"]),
        (["fold=0", "sweep.learning_rte=[1]"], ["sweep.learning_rte", "sweep.learning_rate"]),
        (["fold=0", "sweep.train_fraction=[0.0]"], ["train_fraction", "(0, 1]"]),
        (["fold=0", "probe=ldo"], ["no probe 'ldo'", "did you mean 'lda'"]),
        (["fold=0", "probe=lda", "weight_decay=2"], ["shrinkage", "[0, 1]"]),
        (["fold=0", "probe=knn", "sweep.learning_rate=[1]"], ["probe=knn has no learning_rate"]),
        (
            ["fold=0", "optimizer=lbfgs", "sweep.learning_rate=[1]"],
            ["optimizer=lbfgs has no learning_rate", "leave sweep.learning_rate out"],
        ),
        (
            [
                "fold=0",
                "probe=knn",
                "final=true",
                "data.builder=none",
                "data.embeddings=e.parquet",
                "data.tiles=t.parquet",
                "data.test_tiles=null",
            ],
            ["held-out", "data.test_tiles"],
        ),
        (["fold=0", "calibrate=true", "head=mlp"], ["linear head", "head=mlp"]),
        (["fold=0", "abstain_below=80"], ["abstain_below is out of bounds", "80", "(0, 1]"]),
        (["fold=0", "resume=maybe"], ["resume=maybe", "resume=true"]),
        (["fold=0", "memory_limit=lots", "probe=ridge"], ["memory_limit", "4GB"]),
    ],
)
def test_refusals(argv: list[str], words: list[str], capsys: pytest.CaptureFixture[str]):
    assert probe.main([*argv, "tracking.enabled=false"]) == 2
    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    for word in words:
        assert word in error
