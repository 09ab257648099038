"""Predictions that a run has written: a file, a folder with a file a slide, or an artifact."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from featurestore.contract.predictions import places
from featurestore.io import mlflow_artifacts, names, parquet
from featurestore.io.atomic import write_bytes
from train.predictions import partitions


def dataset(run: str, uri: str | None) -> ds.Dataset:
    """Return a run's predictions, those of the split it was judged by before those out of fold.

    Parameters
    ----------
    run
        The id of a run, a ``models:/`` URI (its run), a file, or a folder with a file a slide (or,
        as they were written before, ``slide_id=NAME/*.parquet``, the name percent-encoded).
    uri
        The tracking URI, see `featurestore.io.mlflow_artifacts.use_tracking`.

    Raises
    ------
    ArtifactError
        There is no such run or file, or it has no predictions.
    """
    return _opened(next(_places(run, uri)))


def all_predictions(run: str, uri: str | None) -> Iterator[pa.Table]:
    """Yield all that a run has predicted, in the order of `dataset`; raises as that does."""
    for place in _places(run, uri):
        yield _opened(place).to_table()


def _places(run: str, uri: str | None) -> Iterator[Path]:
    if not (Path(run).exists() or run.endswith(".parquet")):
        mlflow_artifacts.use_tracking(uri)
    for _, place in places(run):
        yield place


def resolved(run: str, uri: str | None) -> str:
    """Return what `dataset` takes, a registered model by its version, whatever names it.

    Raises
    ------
    ArtifactError
        There is no such model.
    """
    if not names.is_registered(run):
        return run
    mlflow_artifacts.use_tracking(uri)
    return names.resolved(run)


def _opened(path: Path) -> ds.Dataset:
    files = parquet.parquet_files(str(path))
    if path.is_dir():
        return partitions.dataset(path, files)
    return ds.dataset(pq.read_table(files[0], partitioning=None))


def as_json(columns: Mapping[str, list[Any]]) -> str:
    """Return a table as MLflow writes it, numbers that are none as null: ``columns``, ``data``."""
    plain = [_plain(values) for values in columns.values()]
    data = list(zip(*plain, strict=True))
    return json.dumps({"columns": list(columns), "data": data}, ensure_ascii=False)


def _plain(values: list[Any]) -> list[Any]:
    """Return values that JSON has words for: of NumPy's Python's, null for no finite number."""
    if {type(value) for value in values} <= {str, int, bool, type(None)}:
        return values
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    return [None if isinstance(v, float) and not math.isfinite(v) else v for v in values]


def write_json(path: Path, columns: Mapping[str, list[Any]]) -> Path:
    """Write a table, see `as_json`."""
    write_bytes(path, as_json(columns).encode())
    return path


def write_parquet(path: Path, table: pa.Table) -> Path:
    """Write a table by temporary name and rename."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_bytes(path, sink.getvalue().to_pybytes())
    return path
