"""Test tiles that a checkpoint was trained on are found, whatever the training tiles are today."""

import re
from collections.abc import Mapping
from dataclasses import replace
from html import unescape
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TABLES
from matplotlib.figure import Figure
from refused import arguments

from featurestore.io.progress import Rows
from train import probe
from train.config.load import load
from train.config.schema import Config
from train.config.store import open_store
from train.config.text import text
from train.models import checkpoint
from train.reports.training import of_evaluated
from train.runtime import inputs, train_test_overlap
from train.runtime.snapshots import make_snapshots
from train.tracking.runs import RunRecord
from train.tracking.tracker import NullTracker

FILE = f"out/{checkpoint.FILE}"
METRICS = ("leakage/trained_slides", "leakage/trained_patients", "leakage/trained_tiles")


def drawn(file: Path | BytesIO) -> None:
    """Write nothing where a picture would be, which takes most of the time of a tiny fit."""
    if isinstance(file, Path):
        file.write_bytes(b"")


class Recorder(NullTracker):
    """Keeps parameters and metrics."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def params(self, values: Mapping[str, Any]) -> None:
        self.values |= values

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.values |= values


TEST = ["data.test_tiles=test.parquet", "data.test_embeddings=vectors.parquet"]
LEAKING = ["s0", "t1", "s2", "t3"], ["q0", "p1", "q2", "q3"], 8.0
"""Two slides by name, one patient of others, four embeddings under other names."""


def cohort(slides: list[str], patients: list[str], first: float) -> None:
    """Write twelve tiles of four slides as test tiles, their embeddings numbered."""
    number = list(range(12))
    keys = {"slide_id": [slides[n // 3] for n in number], "x": number, "y": [0] * 12}
    tiles = keys | {
        "patient_id": [patients[n // 3] for n in number],
        "roi_coverage_Fat": [0.9 if n % 2 else 0.0 for n in number],
        "roi_coverage_Muscle": [0.0 if n % 2 else 0.8 for n in number],
    }
    vectors = keys | {"embedding": [[n % 2, 1.0, first + n] for n in number]}
    pq.write_table(pa.table(tiles), "test.parquet")
    pq.write_table(pa.table(vectors), "vectors.parquet")


def record(config: Config, digest: str) -> RunRecord:
    """Return what a run recorded whose snapshot nobody has."""
    return RunRecord("0" * 32, None, text(config), {}, {"tiles": digest, "snapshot": "f" * 64}, {})


@pytest.mark.slow
def test_what_was_trained_on_is_found_among_test_tiles(
    artifacts: TABLES, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """No training tiles are named: the checkpoint says what it was trained on, or that is said."""
    tracker = Recorder()
    monkeypatch.setattr(Figure, "savefig", lambda _, file, **__: drawn(file))
    monkeypatch.setattr(inputs, "open_tracker", lambda *_: tracker)
    named = artifacts({"patient_id": [f"p{n // 6}" for n in range(12)]})
    off = ["tracking.enabled=false", "fold=1"]
    assert probe.main(arguments(named, *off, "output=out")) == 0
    assert "trained_on" not in tracker.values  # without test tiles nothing is said of them

    cohort(*LEAKING)
    tracker.values = {}
    argv = ["mode=test", f"checkpoint={FILE}", "output=tested", off[0], *TEST]
    assert probe.main(arguments({}, *argv)) == 0
    cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", Path("tested/report.html").read_text())
    page = dict(pairwise(map(unescape, cells)))
    assert [tracker.values.get(name) for name in METRICS] == [2, 1, 4]
    counts = "2 slides, 1 patient, 4 embeddings"
    expected = f"none: the model was trained on {counts} of the test tiles"
    assert (tracker.values["untouched"], page["untouched number"]) == ("none", expected)
    heard = " ".join(capsys.readouterr().out.split())
    assert "leak: 2 values of slide_id" in heard
    assert "untouched number: none" in heard

    model = checkpoint.load(Path(FILE))
    assert model.snapshot
    config = load(arguments({}, *argv))
    [test_tiles] = make_snapshots(config, [open_store(config)], Rows(None))
    result = train_test_overlap.overlap_of_checkpoint(
        replace(model, snapshot=None), config, test_tiles
    )
    training = of_evaluated(model, "test", result.doubt)
    assert (result.findings, training.verdict) == ((), "not known")
    assert training.facts["untouched number"] == (
        "not known: what the checkpoint was trained on is not recorded with it"
    )

    # The snapshot is gone, and the run's tiles are there: slides and patients are compared.
    trained = load(arguments(named, *off))
    store = open_store(trained)
    store.view("tiles")
    digest = store.sources.digests()["tiles"][1]
    config = replace(config, checkpoint="runs:/x/y")
    monkeypatch.setattr(train_test_overlap, "load_run", lambda _: record(trained, digest))
    result = train_test_overlap.overlap_of_checkpoint(
        replace(model, snapshot="f" * 64), config, test_tiles
    )
    assert [result.metrics.get(name) for name in METRICS] == [2, 1, None]
    assert result.doubt.startswith("none: ")
    monkeypatch.setattr(train_test_overlap, "load_run", lambda _: record(trained, "0" * 64))
    result = train_test_overlap.overlap_of_checkpoint(
        replace(model, snapshot="f" * 64), config, test_tiles
    )
    assert (result.findings, result.doubt.partition(":")[0]) == ((), "not known")

    cohort(["t0", "t1", "t2", "t3"], ["q0", "q1", "q2", "q3"], 100.0)
    [test_tiles] = make_snapshots(config, [open_store(config)], Rows(None))
    result = train_test_overlap.overlap_of_checkpoint(model, config, test_tiles)
    assert [result.metrics[name] for name in METRICS] == [0, 0, 0]
    training = of_evaluated(model, "test", result.doubt)
    assert (result.doubt, training.verdict) == ("", "best/test/*")
