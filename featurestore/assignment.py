"""Assigned folds as an artifact: named by what determines them, made once, found again."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore import digests, mlflow_artifacts, shelf, uris
from featurestore.spec import StoreSpec

NAME = "folds"
FILE = "folds.parquet"
RULES = (
    "class_indices",
    "thresholds",
    "tissue_prop_min",
    "single_class",
    "label_rule",
    "kfold_strategy",
    "kfold_group",
    "k",
    "seed",
    "balance",
    "allow_empty_class",
)


def content(spec: StoreSpec, tiles: Mapping[str, Path]) -> str:
    """Digest all that determines an assignment: the tiles and the rules, no embedding."""
    rules = {name: getattr(spec, name) for name in RULES}
    parts = [digests.digest(tiles, remember=False), rules]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=dict).encode()).hexdigest()


def recalled(digest: str) -> pa.Table | None:
    """Return an assignment that an earlier run logged to MLflow, or None."""
    root = mlflow_artifacts.found(NAME, digest)
    return pq.read_table(uris.local_path(f"{root}/{FILE}")) if root else None


def kept(folds: pa.Table, digest: str) -> str:
    """Log an assignment as an artifact with a run of its own, once; return its URI."""
    root = mlflow_artifacts.logged(
        NAME, digest, lambda folder: pq.write_table(folds, folder / FILE)
    )
    return f"{root}/{FILE}"


def filed(folds: pa.Table, digest: str) -> Path:
    """Keep an assignment on this machine, for views in a file to read; return its file."""

    def build(folder: Path) -> None:
        pq.write_table(folds, folder / FILE)

    return shelf.held(NAME, digest, build).folder / FILE
