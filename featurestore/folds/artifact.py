"""Assigned folds as an artifact: named by what determines them, made once, found again."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.errors import ArtifactError
from featurestore.io import cache, digests, mlflow_artifacts, uris
from featurestore.io.parquet import Dataset
from featurestore.spec.rules import FoldRules, LabelRules, field_names, values_of
from featurestore.spec.store_spec import StoreSpec

NAME = "folds"
FILE = "folds.parquet"
RULES = field_names(LabelRules, FoldRules)
METHOD = 2  # of assigning groups: one more when the same tiles and rules get other folds


def content(spec: StoreSpec, tiles: Mapping[str, Path], method: int = METHOD) -> str:
    """Digest all that determines an assignment: the tiles, the rules, how; no embedding."""
    return _content(spec, digests.digest(tiles, remember=False), method)


def _content(spec: StoreSpec, tiles: str, method: int) -> str:
    rules = values_of(spec, RULES)
    if spec.absent_coverage == "refuse":  # nothing is read otherwise: names are as ever
        del rules["absent_coverage"]
    parts: list[Any] = [tiles, rules]
    if spec.kfold_strategy == "stratified_group" and method > 1:  # the others are as ever
        parts.append({"method": method})
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=dict).encode()).hexdigest()


def method_of(spec: StoreSpec, tiles: Dataset, uri: str | None) -> int:
    """Return by which method a run has assigned the folds that it has logged: today's, if none.

    Parameters
    ----------
    uri
        As `store_assignment` returned it to that run.
    """
    methods = range(METHOD, 0, -1) if uri else ()
    return next((one for one in methods if uri == f"{_root(spec, tiles, one)}/{FILE}"), METHOD)


def find_assignment(spec: StoreSpec, tiles: Dataset, method: int = METHOD) -> pa.Table | None:
    """Return an assignment that an earlier run logged to MLflow, or None.

    Raises
    ------
    ArtifactError
        It is damaged.
    """
    root = _root(spec, tiles, method)
    return _read(Path(uris.local_path(f"{root}/{FILE}")), root) if root else None


def _root(spec: StoreSpec, tiles: Dataset, method: int) -> str | None:
    sums = [digests.digest(tiles.named, remember=False)]
    if not any(fragment.partition for fragment in tiles.fragments):  # which it left out
        sums.append(digests.earlier(tiles.named))
    contents = (_content(spec, one, method) for one in dict.fromkeys(sums))
    roots = (mlflow_artifacts.find_artifact(NAME, content) for content in contents)
    return next((root for root in roots if root), None)


def _read(file: Path, root: str) -> pa.Table:
    try:
        return pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(
            f"The folds that {root} has assigned cannot be read",
            found=f"{file}: {str(error).splitlines()[0]}",
            fix="remove that file if it is a download, or delete the run: the folds are assigned "
            "again",
        ) from error


def store_assignment(folds: pa.Table, digest: str) -> str:
    """Log an assignment as an artifact with a run of its own, once; return its URI."""
    root = mlflow_artifacts.logged(
        NAME, digest, lambda folder: pq.write_table(folds, folder / FILE)
    )
    return f"{root}/{FILE}"


def log_assignment(folds: pa.Table, digest: str) -> Path:
    """Keep an assignment on this machine, for views in a file to read; return its file."""

    def build(folder: Path) -> None:
        pq.write_table(folds, folder / FILE)

    return cache.get_or_build(NAME, digest, build).folder / FILE
