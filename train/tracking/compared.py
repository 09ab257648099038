"""Runs that are compared: what people call them, and whether their folds are the same."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from featurestore.errors import ArtifactError
from featurestore.io import mlflow_artifacts, names
from featurestore.io.uris import local_path
from featurestore.views.folds import KEY
from train.tracking.runs import FOLDS, RunRecord, load_run

SHORT = 8  # characters of a run's id


@dataclass(frozen=True)
class Compared:
    """A run, a version or a file that is compared with others.

    Parameters
    ----------
    run
        As it was named.
    title
        What people call it: the run's name, the version, the file.
    record
        What the run has recorded; None of a file.
    """

    run: str
    title: str
    record: RunRecord | None = None


def look_up(run: str, uri: str | None) -> Compared:
    """Return what is known of a run by its id, of a resolved ``models:/`` URI, or of a file.

    Raises
    ------
    ArtifactError
        There is no such run or model.
    """
    if Path(run).exists() or run.endswith(".parquet"):
        return Compared(run, run)
    mlflow_artifacts.use_tracking(uri)
    record = load_run(names.run_of(run))
    if names.is_registered(run):
        model, number = names.numbered(run)
        title = f"{model} {number}, {record.name}".removesuffix(", ")
    else:
        title = f"{record.name} ({record.run[:SHORT]})".strip()
    return Compared(run, title, record)


def fold_differences(one: RunRecord, other: RunRecord) -> list[str]:
    """Return in words in what the folds of two runs differ, as far as they have recorded them.

    Runs that were judged on held-out tiles are judged alike, whatever they were trained on. Folds
    that were extended are the same ones.
    """
    if any(name.startswith("test/") for record in (one, other) for name in record.metrics):
        return []
    folds = [record.params.get("fold", "") for record in (one, other)]
    if all(fold.isdecimal() for fold in folds) and folds[0] != folds[1]:
        return [f"one validated on fold {folds[0]}, the other on fold {folds[1]}"]
    moved, common = moved_rows(*(record.params.get(FOLDS) for record in (one, other)))
    return [f"{moved:,} of {common:,} rows of their folds are in another fold"] if moved else []


def moved_rows(one: str | None, other: str | None) -> tuple[int, int]:
    """Count the slides or tiles that two assignments have in different folds, and in both.

    Parameters
    ----------
    one, other
        Their URIs; None where there is none, and nothing can be told.
    """
    if one is None or other is None or one == other:
        return 0, 0
    with suppress(ArtifactError):
        first, second = (pq.read_table(local_path(uri)) for uri in (one, other))
        by = [key for key in KEY if key in first.column_names and key in second.column_names]
        both = first.select([*by, "fold"]).join(
            second.select([*by, "fold"]), by, join_type="inner", right_suffix="_other"
        )
        moved = pc.sum(pc.not_equal(both["fold"], both["fold_other"])).as_py() or 0
        return int(moved), len(both)
    return 0, 0
