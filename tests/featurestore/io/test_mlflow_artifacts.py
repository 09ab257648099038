"""End to end on object storage: artifacts in S3, and a tracking server that keeps its own there."""

import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import mlflow
import numpy as np
import pytest
from conftest import ROOT, Server, launch, mlflow_server

from featurestore.examples import SyntheticConfig, write_synthetic

pytestmark = pytest.mark.slow
SECRET = "do-not-print-me"


@pytest.fixture(scope="module")
def bucket() -> Iterator[boto3.client]:
    """Return a client of an S3 server on loopback that holds a cohort at s3://lab/cohort."""
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "MLFLOW_S3_ENDPOINT_URL": f"http://{host}:{port}",
        }.items():  # fmt: skip
            patch.setenv(name, value)
        client = boto3.Session().client("s3")
        client.create_bucket(Bucket="lab")
        yield client
    running.stop()


@pytest.fixture(scope="module")
def cohort(bucket: boto3.client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_synthetic(folder, SyntheticConfig(rows=1500, dim=8, slides=12, patients=9), files=2)
    for path in folder.rglob("*.parquet"):
        bucket.upload_file(str(path), "lab", f"cohort/{path.relative_to(folder)}")
    return folder


@pytest.fixture(scope="module")
def tracking(bucket: boto3.client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server whose proxy writes to S3, with an experiment that clients write to S3 for."""
    home = tmp_path_factory.mktemp("server")
    with mlflow_server(home, "--artifacts-destination", "s3://lab/proxied") as server:
        client = mlflow.MlflowClient(server.uri)
        client.create_experiment("direct", artifact_location="s3://lab/direct")
        client.create_experiment("proxied")
        yield server


def test_fit_from_s3_with_artifacts_in_s3(
    bucket: boto3.client, tracking: Server, cohort: Path, tmp_path: Path
):
    """The fit's experiment has its artifacts in S3 itself, the test's behind the server's proxy."""
    uri = tracking.uri
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("direct")
    with mlflow.start_run() as logged:
        mlflow.log_artifacts(str(cohort / "embeddings"), "embeddings")
    done = launch(
        [sys.executable, str(ROOT / "train" / "probe.py"), "fold=1", "data=synthetic",
         "data.builder=none", "data.tiles=s3://lab/cohort/kfold_tiles.parquet",
         "data.test_tiles=s3://lab/cohort/test_*.parquet", "max_epochs=2",
         "data.slides=s3://lab/cohort/slides.parquet", "tracking.experiment=direct",
         f"data.embeddings=runs:/{logged.info.run_id}/embeddings", "tracking.model=probe"],
        tmp_path, MLFLOW_TRACKING_URI=uri,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    client = mlflow.MlflowClient(uri)
    version = client.get_model_version("probe", "1")
    run = client.get_run(version.run_id)
    config = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/config.yaml")
    assert "s3://lab/cohort/kfold_tiles.parquet" in config
    model = mlflow.pyfunc.load_model("models:/probe/1")
    assert np.asarray(model.predict(np.zeros((3, 8), dtype=np.float32))).shape == (3, 7)
    again = launch(
        [sys.executable, str(ROOT / "train" / "probe.py"), "mode=test", "data=synthetic",
         "data.builder=none", "data.test_tiles=s3://lab/cohort/test_tiles.parquet",
         "data.embeddings=s3://lab/cohort/embeddings", "output=out",
         "checkpoint=models:/probe/1", "tracking.experiment=proxied"],
        tmp_path, MLFLOW_TRACKING_URI=uri,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    everything = [done.stdout, done.stderr, again.stdout, again.stderr, config,
                  (tracking.home / "log.txt").read_text()]  # fmt: skip
    everything += [p.read_text() for p in (tmp_path / ".featurestore").rglob("*.json")]
    assert not [text for text in everything if SECRET in text]
    for prefix, file in (("direct", "checkpoint.safetensors"), ("proxied", "config.yaml")):
        kept = bucket.list_objects_v2(Bucket="lab", Prefix=prefix)["Contents"]
        assert [entry for entry in kept if entry["Key"].endswith(file)]
