"""A real tracking server on loopback, with its artifact proxy: as documented, killed, hostile."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import ROOT, Server, answers, environment_with, free_port, launch, launch_line
from programs import Program, start_ranks

from train import probe
from train.predictions.files import all_predictions
from train.tracking.runs import load_run

pytestmark = pytest.mark.slow
HOSTILE = ["Connective-Tissue", 'O\'Brien; drop "x" --', "Öl & Fett", "50 %"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a configuration of 240 tiles, 12 slides, 6 patients; the last class is rare."""
    folder = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(0)
    number = np.arange(240)
    kind = np.where(number < 2, 3, number % 3)
    slide = number // 20
    tiles = {"slide_id": [f"s {n}" for n in slide], "x": number, "y": number * 0,
             "patient_id": [f"p{n % 6}" for n in slide]}  # fmt: skip
    for index, name in enumerate(HOSTILE):
        tiles[f"roi_coverage_{name}"] = np.where(kind == index, 0.9, 0.0)
    embedding = rng.normal(size=(240, 8)) + 3 * np.eye(4, 8)[kind]
    vectors = {key: tiles[key] for key in ("slide_id", "x", "y")}
    (folder / "embeddings").mkdir()
    pq.write_table(
        pa.table({**vectors, "embedding": list(embedding)}).slice(0, 230),
        folder / "embeddings" / "a.parquet",
    )
    pq.write_table(pa.table(tiles), folder / "kfold_tiles.parquet")
    unlabelled = pa.table({key: tiles[key] for key in ("slide_id", "x", "y")})
    pq.write_table(unlabelled, folder / "bare.parquet")
    (folder / "classes.yaml").write_text(
        yaml.safe_dump(
            {
                "class_indices": {name: i for i, name in enumerate(HOSTILE)},
                "thresholds": dict.fromkeys(HOSTILE, 0.5),
            }
        )
    )
    return folder


def test_fit_on_a_server_reading_its_artifacts(server: Server, cohort: Path, tmp_path: Path):
    """Artifacts logged by run id, read back over HTTP, grouped by patient, a rare class dropped."""
    mlflow.set_tracking_uri(server.uri)
    mlflow.set_experiment("cohort")
    with mlflow.start_run() as logged:
        mlflow.log_artifact(str(cohort / "kfold_tiles.parquet"))
        mlflow.log_artifacts(str(cohort / "embeddings"), "embeddings")
        root = mlflow.get_artifact_uri()
    assert root.startswith("mlflow-artifacts:/")
    common = [f"classes={cohort / 'classes.yaml'}", "data.name=hostile", "data.slides=null",
              "data=prov-gigapath", f"data.embeddings={root}/embeddings"]  # fmt: skip
    done = launch(
        [sys.executable, PROBE, *common, "fold=1", "k=3",
         f"data.tiles=runs:/{logged.info.run_id}/kfold_tiles.parquet", "data.test_tiles=null",
         "kfold_strategy=stratified_group", "kfold_group=patient_id", "learning_rate=0.05",
         "max_epochs=20", "patience=5", "tracking.model=cohort"],
        tmp_path, MLFLOW_TRACKING_URI=server.uri,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warning: Class '50 %' is in 1 of the 3 groups" in " ".join(done.stdout.split())
    assert not (tmp_path / "mlflow.db").exists()

    client = mlflow.MlflowClient(server.uri)
    run = client.get_run(client.get_model_version("cohort", "1").run_id)
    assert run.info.status == "FINISHED"
    mlflow.set_tracking_uri(server.uri)
    scores = load_run(run.info.run_id).metrics
    assert (scores["funnel/input"], scores["funnel/rare_class"], scores["funnel/no_embedding"],
            scores["funnel/kept"]) == (240, 2, 10, 228)  # fmt: skip
    assert scores["leakage/shared_slides"] == scores["leakage/shared_patients"] == 0
    assert scores["class_weight/O.27Brien.3B.20drop.20.22x.22.20--"] > 0
    assert scores["best/validation/f1_macro"] > 0.9
    assert "best/validation/f1/50.20.25" not in scores  # absent: left out of the macro mean
    table = pq.read_table(client.download_artifacts(run.info.run_id, "predictions.parquet"))
    assert [f"prob_{name}" for name in HOSTILE] == table.column_names[5:]

    done = launch(
        [sys.executable, str(ROOT / "train" / "probe.py"), *common, "mode=predict",
         "checkpoint=models:/cohort/1", f"data.predict_tiles={cohort / 'bare.parquet'}",
         "data.tiles=null", "data.test_tiles=null", "output=out"],
        tmp_path, MLFLOW_TRACKING_URI=server.uri,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [bare] = all_predictions(str(tmp_path / "out" / "predictions"), None)
    assert len(bare) == 230  # every tile with an embedding, whatever the rules would say
    assert bare["target"].null_count == 230
    kind = np.where(np.arange(240) < 2, 3, np.arange(240) % 3)[bare["x"].to_numpy()]
    assert np.mean(bare["pred"].to_numpy() == kind) > 0.9

    at_home_in_mlflow(run, cohort, [*common, f"tracking.uri={server.uri}"])

    asked = launch(
        [str(Path(sys.executable).parent / "featurestore"), "--tracking-uri", server.uri,
         "--config", f"runs:/{run.info.run_id}/config.yaml", "sql", "--format", "json",
         "select count(*) as n from fates where dropped_by = 'rare_class'"],
        tmp_path,
    )  # fmt: skip
    assert json.loads(asked.stdout) == [{"n": 2}], asked.stderr


def at_home_in_mlflow(run: Any, cohort: Path, common: list[str]) -> None:
    """MLflow's own calls, over HTTP: an input loads itself, a version is evaluated and found."""
    inputs = {each.dataset.name: each for each in run.inputs.dataset_inputs}
    tiles = pq.read_table(mlflow.data.get_source(inputs["tiles"]).load())
    assert tiles.equals(pq.read_table(cohort / "kfold_tiles.parquet"))

    held_out = tiles.set_column(0, "slide_id", pa.array([f"t {n // 20}" for n in range(240)]))
    vectors = pq.read_table(cohort / "embeddings" / "a.parquet")
    vectors = vectors.set_column(0, "slide_id", held_out["slide_id"].slice(0, len(vectors)))
    for name, table in (("test_tiles", held_out), ("test_embeddings", vectors)):
        pq.write_table(table, cohort / f"{name}.parquet")
    argv = [f"data.{name}={cohort / name}.parquet" for name in ("test_tiles", "test_embeddings")]
    test = [*common, f"data.tiles={cohort / 'kfold_tiles.parquet'}", *argv, "mode=test",
            "checkpoint=models:/cohort/1", "leakage=warn"]  # fmt: skip
    assert probe.main(test) == 0

    x = np.array(vectors["embedding"].to_pylist())
    frame = pd.DataFrame(x, columns=[str(n) for n in range(x.shape[1])])
    labels = mlflow.pyfunc.load_model("models:/cohort/1").predict(frame)
    frame["label"] = np.where(np.arange(len(x)) % 4 > 0, labels, HOSTILE[3])
    with mlflow.start_run():
        evaluated = mlflow.models.evaluate(
            "models:/cohort/1", frame, targets="label", model_type="classifier",
            evaluators=["default"],
        )  # fmt: skip
    assert evaluated.metrics["accuracy_score"] == pytest.approx((frame["label"] == labels).mean())

    order = {"field_name": "metrics.best/test/f1_macro", "dataset_name": "test_tiles",
             "ascending": False}  # fmt: skip
    best = mlflow.search_logged_models(
        [run.info.experiment_id], order_by=[order], output_format="list"
    )[0]
    version = mlflow.MlflowClient().get_model_version("cohort", "1")
    assert best.model_uri == version.source
    figures = {(each.key, each.dataset_name) for each in best.metrics}
    assert ("best/test/f1_macro", "test_tiles") in figures


PROBE = str(ROOT / "train" / "probe.py")
EPOCHS = 20  # more than one job is ahead of the other when the server is killed
LONG = ["fold=4", "learning_rate=0.001", "min_delta=0", f"max_epochs={EPOCHS}",
        f"patience={EPOCHS}"]  # fmt: skip
RANKS = {"one": 1, "two": 2}


def test_a_server_killed_in_mid_run_ends_the_jobs_and_a_resume_completes_them(
    server: Server, digits_cache: Path, tmp_path: Path
):
    """A job of one process and one of two, side by side; each ends with one error, none hangs."""
    environment = {"MLFLOW_TRACKING_URI": server.uri, "ACCELERATE_USE_CPU": "1",
                   "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}  # fmt: skip
    jobs = {}
    for name, number in RANKS.items():
        (tmp_path / name).mkdir()
        shutil.copytree(digits_cache, tmp_path / name / ".featurestore")
        argv = [PROBE, *LONG, "output=out", f"tracking.model={name}",
                f"tracking.experiment={name}"]  # fmt: skip
        started = environment_with(environment)
        if number > 1:
            jobs[name] = start_ranks(number, argv, tmp_path / name, started, free_port())
        else:
            jobs[name] = [Program(argv, tmp_path / name, started)]
    seen: dict[str, set[int]] = {name: set() for name in jobs}
    while min(map(len, seen.values())) < 2:
        for name, job in jobs.items():
            for file in (tmp_path / name).glob(".featurestore/fits/*/head.pt"):
                seen[name].add(file.stat().st_mtime_ns)
            assert job[0].poll() is None or len(seen[name]) > 1, job[0].communicate()[1]
        time.sleep(0.001)
    server.kill()
    errors = {
        name: "".join(process.communicate(timeout=120)[1] for process in job)
        for name, job in jobs.items()
    }
    server.start()
    assert jobs["one"][0].returncode == 2, errors["one"]
    assert all(process.returncode != 0 for process in jobs["two"])
    assert errors["one"].startswith("error: ")
    assert "Traceback" not in errors["one"]
    for name, err in errors.items():
        assert err.count("error: The MLflow tracking server at") == 1, err
        for words in (server.uri, "stopped answering", "refused", "epochs of the fit in",
                      "out/checkpoint.safetensors", "with resume=true"):  # fmt: skip
            assert words in err, (words, err)
        assert (tmp_path / name / "out" / "checkpoint.safetensors").is_file()

    done = launch(
        [sys.executable, PROBE, *LONG, "output=out", "tracking.model=one",
         "tracking.experiment=one", "resume=true"],
        tmp_path / "one", **environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    client = mlflow.MlflowClient(server.uri)
    [run] = client.search_runs([client.get_experiment_by_name("one").experiment_id])
    assert run.info.status == "FINISHED"
    logged = client.get_metric_history(run.info.run_id, "validation/loss")
    assert [entry.step for entry in logged] == list(range(EPOCHS))
    [version] = client.search_model_versions("name = 'one'")
    assert version.run_id == run.info.run_id
    untouched = launch(
        [sys.executable, PROBE, *LONG, "output=whole", "tracking.enabled=false"], tmp_path / "one"
    )
    assert untouched.returncode == 0, untouched.stderr
    files = [tmp_path / "one" / n / "checkpoint.safetensors" for n in ("out", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_walk_through_runs_as_written(server: Server, tmp_path: Path):
    """Every shell line of docs/server.md in its order, on other ports."""
    text = (ROOT / "docs" / "server.md").read_text()
    port = free_port()
    text = text.replace(":5000", f":{server.port}").replace("--port 5000", f"--port {server.port}")
    text = text.replace("5001", str(port)).replace(" train/", f" {ROOT}/train/")
    environment: dict[str, str] = {}
    with ExitStack() as stack:
        for line in "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines():
            words = shlex.split(line)
            if words[:2] == ["mlflow", "server"]:
                assert words == server.command  # which runs already
            elif words[0] == "export":
                environment |= dict(word.split("=", 1) for word in words[1:])
            elif words[:3] == ["mlflow", "models", "serve"]:
                log = tmp_path / "serve.txt"
                serving = subprocess.Popen(
                    [sys.executable, "-m", *words], cwd=tmp_path, start_new_session=True,
                    env={**os.environ, **environment, "PATH": f"{Path(sys.executable).parent}"
                         f"{os.pathsep}{os.environ['PATH']}"},
                    stdout=stack.enter_context(log.open("w")), stderr=subprocess.STDOUT,
                )  # fmt: skip
                stack.callback(serving.wait, 30)
                stack.callback(os.killpg, serving.pid, signal.SIGTERM)
                answers(serving, f"http://127.0.0.1:{port}/ping", log)
            else:
                done = launch_line(line, tmp_path, **environment)
                assert done.returncode == 0, line + done.stderr
    shares = np.array(json.loads(done.stdout)["predictions"])
    assert shares.shape == (2, 10)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
