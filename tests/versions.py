"""Models of known quality in a registry."""

from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml

from featurestore.io import digests
from train.config import load, text
from train.models import checkpoint
from train.models.checkpoint import ModelSpec, TrainedModel
from train.tracking import version_files
from train.tracking.mlflow_tracker import MlflowTracker

MODEL = "tissue-probe"


NAMES = ["Connective-Tissue", 'a|b "`<x>`*;\nü']


GOOD, BETTER, WORSE = 0.6, 0.0, 4.0  # how much a head listens to noise


DATA = ("tiles", "test_tiles", "embeddings")


def cohort(file: str, slides: int, first: int, patient: str | None = None) -> dict:
    """Write ten tiles a slide; return the columns of their embeddings."""
    rng, rows = np.random.default_rng(first), slides * 10
    target = np.arange(rows) % 2
    key = {"slide_id": [f"s{first + n // 10}" for n in range(rows)],
           "x": np.arange(rows) * 10, "y": np.zeros(rows, int)}  # fmt: skip
    columns = {f"roi_coverage_{name}": np.where(target == i, 0.9, 0.0)
               for i, name in enumerate(NAMES)}  # fmt: skip
    columns |= {"patient_id": [f"{patient}{n // 20}" for n in range(rows)]} if patient else {}
    if file == "tiles":
        columns["fold"] = np.arange(rows) // 10 % 2
    pq.write_table(pa.table(key | columns), f"{file}.parquet")
    signal = np.where(target == 0, 1.0, -1.0)
    return key | {"embedding": np.stack([signal, rng.normal(size=rows), signal], 1).tolist()}


def write_data(**changes) -> None:
    """Write six training slides and twelve test slides, of patients of their own."""
    parts = [cohort("tiles", 6, 0, changes.get("patient", "p")),
             cohort("test_tiles", 12, changes.get("first", 100), "q")]  # fmt: skip
    columns = {name: [*parts[0][name], *parts[1][name]] for name in parts[0]}
    pq.write_table(pa.table(columns).slice(changes.get("skip", 0)), "embeddings.parquet")


def register(noise: float, names: list[str] = NAMES, dim: int = 3, **changes) -> str:
    """Register a head that listens to noise, as a fit would; return its number."""
    torch.manual_seed(0)
    spec = ModelSpec("linear", 0, "none", dim, names, [1.0] * len(names))
    network = spec.build()
    head = network.get_submodule("head")
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.weight[0, 0], head.weight[0, 1] = 5.0, 5.0 * noise
    file = checkpoint.save(Path("made") / checkpoint.FILE, TrainedModel(network, spec))
    classes = {"class_indices": {n: i for i, n in enumerate(names)},
               "thresholds": dict.fromkeys(names, 0.5)}  # fmt: skip
    Path("own.yaml").write_text(yaml.safe_dump({"data": {"name": "own"}, **classes}))
    Path("none.yaml").write_text("{}")
    uris = [f"data.{name}={Path(name).resolve()}.parquet" for name in DATA]
    settled = load.load(["data=own.yaml", "classes=none.yaml", "fold=0", *uris])
    with MlflowTracker(mlflow.get_tracking_uri(), "fits", None) as tracker:
        tracker.text(text.text(settled), "config.yaml")
        for name in changes.get("recorded", DATA):
            there = Path(f"{name}.parquet").resolve()
            tracker.dataset(
                name, str(there), {"sha256": digests.digest({there.name: there})}, "fit"
            )
        tracker.file(file, "model/extra_files")
        run = tracker.run
    client = mlflow.MlflowClient()
    if not client.search_registered_models(f"name = '{MODEL}'"):
        client.create_registered_model(MODEL)
    source = f"{client.get_run(run).info.artifact_uri}/model"
    made = client.create_model_version(MODEL, source, run)
    version_files.record_digests(MODEL, str(made.version))
    return str(made.version)


def stored(number: str) -> Path:
    found = mlflow.MlflowClient().get_model_version_download_uri(MODEL, number)
    return Path(found.removeprefix("file://"))
