"""The script under its launchers: one process, two ranks, and what is left in MLflow."""

import json
import sys
from pathlib import Path

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, TABLES, launch, launch_ranks

from train.predictions.files import all_predictions

pytestmark = pytest.mark.slow
PROBE = str(ROOT / "train" / "probe.py")


@pytest.fixture(scope="module")
def client(digits_home: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{digits_home / 'mlflow.db'}")


@pytest.fixture(scope="module")
def run(client: mlflow.MlflowClient) -> mlflow.entities.Run:
    """Return the run of the main command."""
    version = client.get_model_version("tissue-probe", "1")
    return client.get_run(version.run_id)


def artifact(client: mlflow.MlflowClient, run: mlflow.entities.Run, path: str) -> Path:
    return Path(client.download_artifacts(run.info.run_id, path))


def test_main_command_prints_funnel_leak_scores_and_model(digits_home: Path):
    output = (digits_home / "stdout.txt").read_text()
    for words in ("input", "kept", "11 shared slides", "f1_macro", "models:/tissue-probe/1"):
        assert words in output


def test_no_progress_bar_outside_a_terminal(digits_home: Path):
    assert not {"\x1b", "\r"} & set((digits_home / "stdout.txt").read_text())


def test_run_logs_its_inputs(client: mlflow.MlflowClient, run: mlflow.entities.Run):
    inputs = {item.dataset.name: item for item in run.inputs.dataset_inputs}
    assert {"tiles", "embeddings"} <= set(inputs)
    tags = {tag.key: tag.value for tag in inputs["tiles"].tags}
    assert tags["uri"].startswith("runs:/")
    assert len(tags["sha256"]) == 64
    assert inputs["tiles"].dataset.digest == tags["sha256"][:32]
    assert run.data.params["learning_rate"] == "0.02"
    assert run.data.params["folds_artifact"].startswith("runs:/")
    assert "torch==" in artifact(client, run, "versions.txt").read_text()
    assert "kfold_strategy: stratified" in artifact(client, run, "config.yaml").read_text()
    assert len(run.data.tags["mlflow.source.git.commit"]) >= 40


def test_the_version_says_how_it_was_trained(client: mlflow.MlflowClient):
    description = client.get_model_version("tissue-probe", "1").description
    for line in ("registered head: that of fold 4", "learning_rate: 0.02", "label_rule: dominant"):
        assert f"- {line}" in description


def figures(client: mlflow.MlflowClient, run: mlflow.entities.Run) -> dict[str, float]:
    """Return the metrics of a run, those too that are not logged by themselves."""
    table = json.loads(artifact(client, run, "metrics.json").read_text())
    assert table["columns"] == ["metric", "value"]
    return dict(table["data"])


def test_run_logs_what_people_look_at_and_the_rest_in_a_table(
    client: mlflow.MlflowClient, run: mlflow.entities.Run
):
    logged, every = run.data.metrics, figures(client, run)
    of_classes = [
        name
        for name in logged
        if name.startswith(("best/validation/f1/", "best/validation/recall/"))
    ]
    assert len(of_classes) == 20
    assert len(logged) - len(of_classes) <= 20
    assert every["funnel/input"] == logged["funnel/kept"] == 1430
    assert logged["leakage/shared_slides"] == 11
    for name in (
        "train/loss", "validation/loss", "validation/accuracy", "validation/f1_macro",
        "validation/balanced_accuracy", "best/validation/loss", "best/validation/kappa",
    ):  # fmt: skip
        assert np.isfinite(logged[name]), name
    for kind in ("mean", "median", "min"):
        assert np.isfinite(every[f"best/validation/slide_accuracy/{kind}"])
    assert {f"class_weight/{digit}" for digit in range(10)} <= set(every)
    assert {name: every[name] for name in logged if name.startswith("best/")} == {
        name: value for name, value in logged.items() if name.startswith("best/")
    }


def test_scores_follow_from_the_predictions(client: mlflow.MlflowClient, run: mlflow.entities.Run):
    """Every validation tile stands once in predictions.parquet, and scikit-learn agrees."""
    from sklearn.metrics import balanced_accuracy_score, f1_score

    table = pq.read_table(artifact(client, run, "predictions.parquet"))
    assert table.column_names == [
        "slide_id", "x", "y", "target", "pred", *(f"prob_{d}" for d in range(10))
    ]  # fmt: skip
    assert len(table) == len(table.group_by(["slide_id", "x", "y"]).aggregate([])) == 286
    target, pred = table["target"].to_numpy(), table["pred"].to_numpy()
    logged = figures(client, run)
    assert logged["best/validation/accuracy"] == pytest.approx((target == pred).mean())
    assert logged["best/validation/f1_macro"] == pytest.approx(
        f1_score(target, pred, average="macro")
    )
    assert logged["best/validation/balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(target, pred)
    )
    for name in ("f1_macro", "kappa", "brier", "auroc_macro"):
        assert logged[f"best/validation/{name}_low"] <= logged[f"best/validation/{name}"]
        assert logged[f"best/validation/{name}_high"] >= logged[f"best/validation/{name}"]
    pictures = {file.path for file in client.list_artifacts(run.info.run_id, "evidence")}
    assert pictures == {f"evidence/{name}.png" for name in (
        "classes", "curves", "reliability", "risk_coverage", "slides"
    )}  # fmt: skip
    probabilities = np.stack([table[f"prob_{d}"].to_numpy() for d in range(10)], axis=1)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), pred)


def test_confusion_of_every_epoch_as_table_and_of_the_best_and_the_last_as_picture(
    client: mlflow.MlflowClient, run: mlflow.entities.Run
):
    epochs = len(client.get_metric_history(run.info.run_id, "validation/loss"))
    pictures = client.list_artifacts(run.info.run_id, "confusion")
    losses = [m.value for m in client.get_metric_history(run.info.run_id, "validation/loss")]
    drawn = sorted({int(np.argmin(losses)), epochs - 1})
    assert [file.path for file in pictures] == [f"confusion/epoch_{n:04d}.png" for n in drawn]
    head = artifact(client, run, pictures[0].path).read_bytes()[:8]
    assert head == b"\x89PNG\r\n\x1a\n"
    table = json.loads(artifact(client, run, "confusion.json").read_text())
    column = table["columns"].index("tiles")
    assert sum(row[column] for row in table["data"]) == epochs * 286


def test_slides_and_label_tables(client: mlflow.MlflowClient, run: mlflow.entities.Run):
    slides = json.loads(artifact(client, run, "slides.json").read_text())
    assert slides["columns"] == ["slide_id", "tiles", "accuracy"]
    assert sum(row[1] for row in slides["data"]) == 286
    labels = json.loads(artifact(client, run, "label_distribution.json").read_text())
    assert labels["columns"] == ["fold", "label", "tiles", "slides"]
    assert sum(row[2] for row in labels["data"]) == 1430


def test_registered_model_predicts_without_this_project(digits_home: Path):
    """A process that cannot import the project gets probabilities from the registry."""
    code = """
import sys
sys.modules["featurestore"] = sys.modules["train"] = None  # an import would fail
import mlflow, numpy as np
mlflow.set_tracking_uri("sqlite:///mlflow.db")
model = mlflow.pyfunc.load_model("models:/tissue-probe/1")
batch = np.random.default_rng(0).random((7, 64), dtype=np.float32)
probabilities = np.asarray(model.predict(batch))
assert probabilities.shape == (7, 10), probabilities.shape
assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
assert model.metadata.signature is not None and model.input_example is not None
assert model.metadata.metadata["classes"] == [str(d) for d in range(10)]
"""
    done = launch([sys.executable, "-c", code], digits_home)
    assert done.returncode == 0, done.stderr


def test_registry_holds_no_pickle(client: mlflow.MlflowClient, digits_home: Path):
    files = [path.name for path in (digits_home / "mlruns").rglob("models/**/*") if path.is_file()]
    assert "model.pt2" in files
    assert not [name for name in files if name.endswith((".pkl", ".pth", ".pickle"))]


def test_second_run_reuses_data_and_folds(
    client: mlflow.MlflowClient, digits_home: Path, monkeypatch: pytest.MonkeyPatch
):
    from train import probe

    def artifacts() -> list[str]:
        store = client.get_experiment_by_name("feature-store").experiment_id
        return sorted(run.info.run_name for run in client.search_runs([store]))

    monkeypatch.chdir(digits_home)
    before = artifacts()  # other tests may have run on other data here
    assert {"digits", "folds"} <= {*before}
    uri = f"tracking.uri=sqlite:///{digits_home / 'mlflow.db'}"
    assert probe.main(["fold=3", "max_epochs=2", "tracking.register=false", uri]) == 0
    assert artifacts() == before


@pytest.fixture(scope="module")
def two_ranks(digits_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a working folder in which two ranks have run the main job."""
    home = tmp_path_factory.mktemp("two")
    done = launch(
        ["torchrun", "--nproc_per_node", "2", PROBE, "fold=4"], home, ACCELERATE_USE_CPU="1"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("f1_macro") == 1  # one process speaks
    return home


def test_two_ranks_give_what_one_process_gives(
    two_ranks: Path, client: mlflow.MlflowClient, run: mlflow.entities.Run
):
    """Same predictions, same metrics, one MLflow run, one model version."""
    other = mlflow.MlflowClient(f"sqlite:///{two_ranks / 'mlflow.db'}")
    experiment = other.get_experiment_by_name("tissue-probe").experiment_id
    runs = other.search_runs([experiment])
    assert len(runs) == 1
    assert [v.version for v in other.search_model_versions("name='tissue-probe'")] in (["1"], [1])
    ours = pq.read_table(artifact(client, run, "predictions.parquet"))
    theirs = pq.read_table(artifact(other, runs[0], "predictions.parquet"))
    for name in ours.column_names:
        if name.startswith("prob_"):
            np.testing.assert_allclose(theirs[name], ours[name], atol=1e-3)
        else:
            assert theirs[name].to_pylist() == ours[name].to_pylist()
    for name, value in run.data.metrics.items():
        assert runs[0].data.metrics[name] == pytest.approx(value, abs=1e-3), name


def test_same_seed_same_weights_bit_for_bit(tmp_path: Path):
    """In a process of its own and in this one, which has drawn other random numbers before."""
    from train import probe

    argv = ["fold=1", "max_epochs=3", "tracking.enabled=false"]
    done = launch([sys.executable, PROBE, *argv, "output=a"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert probe.main([*argv, "output=b"]) == 0
    written = [(tmp_path / name / "checkpoint.safetensors").read_bytes() for name in "ab"]
    assert written[0] == written[1]


@pytest.mark.parametrize("mode", ["validate", "test", "predict"])
@pytest.mark.parametrize(
    "checkpoint", ["models:/tissue-probe/1", "runs:/{run}/checkpoint.safetensors"]
)
def test_other_modes_apply_a_checkpoint(
    digits_home: Path,
    run: mlflow.entities.Run,
    mode: str,
    checkpoint: str,
):
    from train import probe

    rows = 286 if mode == "validate" else 367

    uri = f"tracking.uri=sqlite:///{digits_home / 'mlflow.db'}"
    fold = ["fold=4"] if mode == "validate" else []
    named = "checkpoint=" + checkpoint.format(run=run.info.run_id)
    assert probe.main([f"mode={mode}", named, "output=out", uri, *fold]) == 0
    name = "predictions" if mode == "predict" else "predictions.parquet"
    [table] = all_predictions(f"out/{name}", None)
    assert len(table) == rows
    accuracy = np.mean(table["pred"].to_numpy() == table["target"].to_numpy())
    assert accuracy > 0.85  # three writers that nobody trained on
    if mode == "validate":
        assert accuracy == pytest.approx(run.data.metrics["best/validation/accuracy"])


def test_three_ranks_share_a_single_validation_tile(artifacts: TABLES, tmp_path: Path):
    """Uneven and empty shares, a last short batch: the same probabilities as one process."""
    from train import probe

    named = artifacts({"fold": [0] * 11 + [1]})
    (tmp_path / "own.yaml").write_text(
        "data: {name: own}\nnormalize: zscore\nbatch_size: 4\nmax_epochs: 3\nlearning_rate: 0.1\n"
        "class_indices: {Fat: 0, Muscle: 1}\nthresholds: {Fat: 0.5, Muscle: 0.5}\n"
    )
    (tmp_path / "none.yaml").write_text("{}")
    common = ["data=own.yaml", "classes=none.yaml", "fold=1", "tracking.enabled=false",
              *(f"{key}={value}" for key, value in named.items())]  # fmt: skip
    three = launch_ranks(3, [PROBE, *common, "output=three"], tmp_path)
    assert three.returncode == 0, three.stderr
    assert probe.main([*common, "output=one"]) == 0
    tables = [pq.read_table(tmp_path / n / "predictions.parquet") for n in ("one", "three")]
    assert [len(table) for table in tables] == [1, 1]
    for name in ("prob_Fat", "prob_Muscle"):
        np.testing.assert_allclose(tables[1][name], tables[0][name], atol=1e-5)
