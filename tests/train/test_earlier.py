"""A run that code before the digests of rows has recorded is replayed, by content.

``fixtures/earlier`` is what that code has logged: the artifacts' digests left out the folders of
their files, and a snapshot's digest held the text of the views.
"""

import json
import re
import shutil
from pathlib import Path

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, InputTag

from featurestore.io import digests, parquet
from train import replay

FIXTURE = ROOT / "tests" / "fixtures" / "earlier"
EARLIER = "recorded before the rows of a snapshot had a digest of their own: its figures decide"


@pytest.fixture
def run(tmp_path: Path) -> str:
    """Return the id of the run, logged anew, its artifacts beside it."""
    shutil.copytree(FIXTURE / "in", tmp_path / "in")
    recorded = json.loads((FIXTURE / "run.json").read_text())
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    mlflow.set_experiment("tissue-probe")
    client = mlflow.MlflowClient()
    with mlflow.start_run() as logged:
        mlflow.log_params(recorded["params"])
        mlflow.log_metrics(recorded["metrics"])
        for one in recorded["inputs"]:
            source = CodeDatasetSource(tags=one["tags"])
            dataset = MetaDataset(source, name=one["name"], digest=one["tags"]["sha256"][:32])
            tags = [InputTag(key, value) for key, value in one["tags"].items()]
            client.log_inputs(logged.info.run_id, [DatasetInput(dataset._to_mlflow_entity(), tags)])
        for name in ("config.yaml", "checkpoint.safetensors"):
            mlflow.log_artifact(str(FIXTURE / name))
    return str(logged.info.run_id)


def again(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    """Replay; return the exit status and all that was said, on one line."""
    capsys.readouterr()
    status = replay.main([*argv, f"tracking.uri=sqlite:///{Path.cwd() / 'mlflow.db'}"])
    out = capsys.readouterr()
    return status, re.sub(r"\s+", " ", out.out + out.err)


@pytest.mark.slow
def test_the_same_content_is_the_same_run(run: str, capsys: pytest.CaptureFixture[str]):
    """Its embeddings lie in folders, which its digest did not know."""
    recorded = json.loads((FIXTURE / "run.json").read_text())["inputs"][2]["tags"]["sha256"]
    embeddings = parquet.dataset("in/embeddings").named
    assert digests.earlier(embeddings) == recorded != digests.digest(embeddings)
    status, output = again(capsys, run)
    assert status == 0, output
    assert EARLIER in output
    assert re.search(r"│ embeddings │ \w{12} │ \w{12} │ yes │", output)
    assert re.search(r"the same: \d+ figures and all the artifacts", output)


def swapped(tiles: pa.Table) -> pa.Table:
    """Return tiles whose classes have changed places."""
    names = ["roi_coverage_Fat", "roi_coverage_Muscle"]
    return tiles.rename_columns({names[0]: names[1], names[1]: names[0]}).select(tiles.column_names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("thresholds.Fat=0.8", ["│ funnel/class_threshold │", "NOT the same: "]),
        ("data.tiles=other.parquet", ["NOT the same: ", "and the data: tiles"]),
    ],
)
def test_other_rows_are_not(
    change: str, words: list[str], run: str, capsys: pytest.CaptureFixture[str]
):
    pq.write_table(swapped(pq.read_table("in/tiles.parquet")), "other.parquet")
    status, output = again(capsys, run, change)
    assert status == 3, output
    for word in words:
        assert word in output
