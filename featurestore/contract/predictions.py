"""Predictions that runs have written, as tables of the engine."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import ibis.expr.types as ir
import pyarrow as pa
from ibis.backends.sql import SQLBackend

from featurestore.backend import errors
from featurestore.contract.schemas import checked_table
from featurestore.errors import ArtifactError, EmptyViewError, SchemaError
from featurestore.io import names, parquet, uris
from featurestore.io.parquet import Dataset
from featurestore.views.folds import KEY
from featurestore.views.predictions import PROBABILITY, RunPredictions, doubt_view

PARTS = {
    "predictions.parquet": "held_out",
    "predictions": "held_out",
    "oof_predictions.parquet": "out_of_fold",
}
"""Where a run writes predictions, by which it is judged first -> which tiles they are of."""


def places(run: str) -> Iterator[tuple[str, Path]]:
    """Yield where the predictions of a run lie on this machine, with their names in `PARTS`.

    Parameters
    ----------
    run
        The id of a run, a ``models:/`` URI (its run), or a file or folder of predictions.

    Raises
    ------
    ArtifactError
        There is no such run or file, or it has no predictions.
    """
    if Path(run).exists():
        name = Path(run).name
        yield name if name in PARTS else "predictions", Path(run)
        return
    if run.endswith(".parquet"):
        parquet.parquet_files(run)  # says what lies there instead
    number, empty = names.run_of(run), True
    names.check_run(number)
    for name in PARTS:
        with suppress(ArtifactError):
            path = Path(uris.local_path(f"runs:/{number}/{name}"))
            if path.exists():
                empty = False
                yield name, path
    if empty:
        raise ArtifactError(
            f"Run {run} has no predictions",
            found=f"none of {', '.join(PARTS)} among its artifacts",
            fix="name a run of train/probe.py, or a file that it has written",
        )


def datasets(runs: Sequence[str]) -> Iterator[tuple[str, str, Dataset]]:
    """Yield name, part and files of the predictions of some runs.

    Raises
    ------
    ArtifactError
        See `places`.
    """
    for run in dict.fromkeys(map(names.resolved, runs)):
        for name, path in places(run):
            yield run, PARTS[name], parquet.dataset(str(path))


def tables(
    connection: SQLBackend, found: Sequence[tuple[str, str, Dataset]]
) -> Iterator[RunPredictions]:
    """Yield the predictions in some `datasets`, once their files are known to agree.

    Raises
    ------
    SchemaError
        They do not, or are no predictions.
    """
    for run, part, dataset in found:
        lacking = [name for name in (*KEY, "target", "pred") if name not in dataset.columns]
        if lacking or not any(name.startswith(PROBABILITY) for name in dataset.columns):
            raise SchemaError(
                f"{run} are no predictions",
                found=f"columns {', '.join(dataset.columns)}",
                fix="name a run of train/probe.py, or a file or folder that it has written",
            )
        yield RunPredictions(run, part, checked_table(connection, dataset, f"predictions of {run}"))


def doubted(predictions: ir.Table, limit: int) -> pa.Table:
    """Return the first rows of `featurestore.views.predictions.doubt_view`.

    Raises
    ------
    EmptyViewError
        There is none: no label is in doubt, or no tile has one.
    """
    with errors.translated():
        issues = doubt_view(predictions).limit(limit).to_pyarrow()
    if not len(issues):
        raise EmptyViewError(
            "No label is in doubt",
            found="the run predicts all labels, or its tiles have none",
            fix="name a run that has predicted tiles with labels, for example one of fold=all",
        )
    return issues
