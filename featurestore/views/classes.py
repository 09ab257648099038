"""Classes: the suffixes of the coverage columns, each with an index and a threshold."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import ibis
import ibis.expr.types as ir

from featurestore.errors import SchemaError, UnknownClassError

COVERAGE = "roi_coverage_"
BACKGROUND = "background"


@dataclass(frozen=True)
class ClassSpec:
    """One class of tissue.

    Parameters
    ----------
    name
        The suffix of its coverage column; any text.
    index
        Its number as a training target, 0 .. K-1.
    threshold
        Least coverage, in [0, 1], for a tile to carry this label.
    """

    name: str
    index: int
    threshold: float

    @property
    def column(self) -> str:
        """Name of the coverage column."""
        return COVERAGE + self.name


def class_names(columns: Iterable[str]) -> list[str]:
    """Return the classes that the coverage columns name, in column order."""
    return [column.removeprefix(COVERAGE) for column in columns if column.startswith(COVERAGE)]


def class_specs(
    names: Sequence[str], indices: Mapping[str, int], thresholds: Mapping[str, float]
) -> tuple[ClassSpec, ...]:
    """Match the classes of the data with their configured indices and thresholds.

    Parameters
    ----------
    names
        Classes of the tiles artifact, in column order, which also breaks ties.
    indices
        Class name to target, a permutation of 0 .. K-1.
    thresholds
        Class name to least coverage.

    Raises
    ------
    SchemaError
        The data has no coverage column, or a class bears the reserved name ``background``.
    UnknownClassError
        The three do not name the same classes, or a number is out of its range.
    """
    if not names:
        raise SchemaError(
            f"The tiles have no {COVERAGE}<Class> column, so no tile has a label",
            found="no column whose name starts with " + COVERAGE,
            fix="write one coverage column per class, doubles in [0, 1]",
        )
    if BACKGROUND in names:
        raise SchemaError(
            f"A class may not be named {BACKGROUND!r}: that is the label of tiles without coverage",
            found=f"column {COVERAGE + BACKGROUND}",
            fix="rename the column",
        )
    _same(names, indices, "class_indices")
    _same(names, thresholds, "thresholds")
    if sorted(indices.values()) != list(range(len(indices))):
        raise UnknownClassError(
            "class_indices must number the classes 0 .. K-1, each once",
            found=str(dict(indices)),
            fix=f"use each of 0 .. {len(indices) - 1} once",
        )
    for name, value in thresholds.items():
        if not 0 <= value <= 1:
            raise UnknownClassError(
                f"The threshold of class {name!r} is not a share",
                found=f"{value}",
                fix=f"set thresholds.{name} to a number in [0, 1]",
            )
    return tuple(ClassSpec(name, indices[name], thresholds[name]) for name in names)


def class_view(classes: Sequence[ClassSpec]) -> ir.Table:
    """Return the classes as a table: ``name, index, threshold``, one row per class."""
    rows = [
        ibis.struct({"name": c.name, "index": c.index, "threshold": float(c.threshold)})
        for c in classes
    ]
    table = ibis.array(rows).unnest().name("spec").as_table().unpack("spec")
    return table.mutate(index=table["index"].cast("int64"))


def _same(names: Sequence[str], configured: Mapping[str, object], key: str) -> None:
    missing = [name for name in names if name not in configured]
    if missing:
        raise UnknownClassError(
            f"{key} has no entry for classes of the data: {_quoted(missing)}",
            found=_listed(key, configured) + _nearest(missing[0], configured),
            fix=f"set {key}.{missing[0]}=..., or pick the right classes=...",
        )
    extra = [name for name in configured if name not in names]
    if extra:
        raise UnknownClassError(
            f"{key} names classes that are not in the data: {_quoted(extra)}",
            found=_listed("classes in the data", names) + _nearest(extra[0], names),
            fix=f"remove {key}.{extra[0]}, or pick the right classes=...",
        )


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _listed(title: str, names: Iterable[str]) -> str:
    return f"{title}: {', '.join(names) or 'none'}"


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
