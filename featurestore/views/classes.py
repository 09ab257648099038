"""Classes: the suffixes of the coverage columns, each with an index and a threshold."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import ibis
import ibis.expr.types as ir

from featurestore.errors import SchemaError, UnknownClassError
from featurestore.spec.rules import LabelRules
from featurestore.spec.typed import nearest, nearest_name

COVERAGE = "roi_coverage_"
BACKGROUND = "background"


@dataclass(frozen=True)
class ClassSpec:
    """One class of tissue.

    Parameters
    ----------
    name
        Any text.
    index
        Its number as a training target, 0 .. K-1; None of a class that is dropped.
    threshold
        Least coverage, in [0, 1], for a tile to carry this label.
    members
        The classes of the data whose coverages add up to its own; by default the one of its name.
    """

    name: str
    index: int | None
    threshold: float
    members: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """Names of the coverage columns."""
        return [COVERAGE + member for member in self.members or (self.name,)]


def class_names(columns: Iterable[str]) -> list[str]:
    """Return the classes that the coverage columns name, in column order."""
    return [column.removeprefix(COVERAGE) for column in columns if column.startswith(COVERAGE)]


def class_specs(names: Sequence[str], rules: LabelRules) -> tuple[ClassSpec, ...]:
    """Match the classes of the data with the rules that name classes.

    Parameters
    ----------
    names
        Classes of the tiles artifact, in column order, which also breaks ties: a merged class
        stands in its own column, or else in the first that it takes in.
    rules
        ``class_indices``, ``thresholds``, ``merge`` and ``drop``.

    Raises
    ------
    SchemaError
        The data has no coverage column, or a class bears the reserved name ``background``.
    UnknownClassError
        They do not name the same classes, or a number is out of its range.
    """
    indices, thresholds = rules.class_indices or {}, rules.thresholds or {}
    if not names:
        raise SchemaError(
            f"The tiles have no {COVERAGE}<Class> column, so no tile has a label",
            found="no column whose name starts with " + COVERAGE,
            fix="write one coverage column per class, doubles in [0, 1]",
        )
    if BACKGROUND in (*names, *rules.merge):
        raise SchemaError(
            f"A class may not be named {BACKGROUND!r}: that is the label of tiles without coverage",
            found=f"column {COVERAGE + BACKGROUND}" if BACKGROUND in names else "merge.background",
            fix="rename it",
        )
    merged = merged_classes(names, rules.merge)
    _check_dropped(merged, rules)
    trained = [name for name in merged if name not in rules.drop]
    _same(trained, indices, "class_indices")
    _same(trained, thresholds, "thresholds")
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
    return tuple(
        ClassSpec(name, indices.get(name), thresholds.get(name, 0.0), members)
        for name, members in merged.items()
    )


def merged_classes(
    names: Sequence[str], merge: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """Return the classes that those of the data are merged to, with what each takes in, in order.

    Raises
    ------
    UnknownClassError
        A class that is to be merged is not in the data, or would be merged twice.
    """
    goes_to: dict[str, str] = {}
    for name, members in merge.items():
        for member in (member for member in members if member != name):
            if member not in names:
                raise UnknownClassError(
                    f"merge.{name} names a class that is not in the data: {member!r}",
                    found=_listed("classes in the data", names) + nearest(member, names),
                    fix=f"take it out of merge.{name}, or correct it",
                )
            if member in goes_to or member in merge:
                raise UnknownClassError(
                    f"Class {member!r} is merged twice",
                    found=f"into {name!r}, and "
                    + (f"into {goes_to[member]!r}" if member in goes_to else "others into it"),
                    fix="name the class that it becomes in the end once",
                )
            goes_to[member] = name
    members_of: dict[str, list[str]] = {}
    for name in names:
        members_of.setdefault(goes_to.get(name, name), []).append(name)
    own_first = sorted(members_of, key=lambda name: _place(name, members_of[name], names))
    return {name: tuple(members_of[name]) for name in own_first}


def _place(name: str, members: Sequence[str], names: Sequence[str]) -> int:
    return names.index(name if name in members else members[0])


def _check_dropped(merged: Iterable[str], rules: LabelRules) -> None:
    merged = list(merged)
    for name in rules.drop:
        if name not in merged:
            raise UnknownClassError(
                f"drop names a class that is not in the data: {name!r}",
                found=_listed("classes in the data", merged) + nearest(name, merged),
                fix="take it out of drop, or correct it",
            )
        for key in ("class_indices", "thresholds"):
            if name in (getattr(rules, key) or {}):
                raise UnknownClassError(
                    f"Class {name!r} is dropped, and has a rule of classes that are trained on",
                    found=f"drop, and {key}.{name}",
                    fix=f"take it out of drop, or out of {key}",
                )


def class_view(classes: Sequence[ClassSpec]) -> ir.Table:
    """Return the classes as a table: ``name, index, threshold``, one row per class."""
    rows = [
        ibis.struct({
            "name": c.name,
            "index": ibis.null("int64") if c.index is None else ibis.literal(c.index, "int64"),
            "threshold": float(c.threshold),
        })
        for c in classes
    ]  # fmt: skip
    return ibis.array(rows).unnest().name("spec").as_table().unpack("spec")


def _same(names: Sequence[str], configured: Mapping[str, object], key: str) -> None:
    missing = [name for name in names if name not in configured]
    extra = [name for name in configured if name not in names]
    if missing:
        first = missing[0]
        typo = nearest_name(first, extra)
        advice = f"write {key}.{first} in place of {key}.{typo}; or " if typo else ""
        raise UnknownClassError(
            f"{key} has no entry for classes of the data: {_quoted(missing)}",
            found=_listed(key, configured) + (f"; no class is called {typo!r}" if typo else ""),
            fix=f"{advice}set {key}.{first}=..., merge.CLASS=[{first}] or drop=[{first}]; "
            "or pick the right classes=...",
        )
    if extra:
        raise UnknownClassError(
            f"{key} names classes that are not in the data: {_quoted(extra)}",
            found=_listed("classes in the data", names) + nearest(extra[0], names),
            fix=f"remove {key}.{extra[0]} (a class that is merged has none), or pick the right "
            "classes=...",
        )


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _listed(title: str, names: Iterable[str]) -> str:
    return f"{title}: {', '.join(names) or 'none'}"
