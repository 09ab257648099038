"""What differs between two snapshots: rules, counts, and the tiles that moved."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from featurestore.backend import engine, errors
from featurestore.snapshots.part_list import listed_parts
from featurestore.snapshots.snapshot import Snapshot
from featurestore.views.folds import KEY

ABSENT = "not there"
FIRST = 10  # tiles that are named


def difference(before: Snapshot, after: Snapshot) -> list[tuple[str, pa.Table]]:
    """Compare two snapshots.

    Returns
    -------
    list of (title, table)
        ``rules`` (rule, before, after), ``parts`` (change, file, rows), ``counts`` (fold, label,
        before, after), ``moves`` (before, after, tiles), ``tiles`` (the first that moved). A table
        without rows says that nothing differs.
    """
    connection = engine.connect()
    ours, theirs = (engine.read_parquet(connection, made.files()) for made in (before, after))
    both = moved_view(ours, theirs)
    with errors.translated():
        moves = both.group_by(["before", "after"]).aggregate(tiles=both.count())
        order = [ibis.desc("tiles"), "before", "after"]
        return [
            ("rules and artifacts", _rules(before.manifest, after.manifest)),
            ("parts of the embeddings", changed_parts(before, after)),
            ("tiles per fold and label", counts_view(ours, theirs).to_pyarrow()),
            ("tiles that moved", moves.order_by(order).to_pyarrow()),
            (f"the first {FIRST}", both.order_by(list(KEY)).limit(FIRST).to_pyarrow()),
        ]


def changed_parts(before: Snapshot, after: Snapshot) -> pa.Table:
    """Return the parts that one of two snapshots has alone: ``change, file, rows``.

    ``change`` is ``added``, ``gone`` or ``changed``: a file of the same name is another part.
    """
    ours, theirs = (
        {row["part"]: row for row in listed_parts(made.folder)} for made in (before, after)
    )
    gone: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for part, row in ours.items():
        if part not in theirs:
            gone[row["file"]].append(row)
    rows = []
    for part, row in theirs.items():
        if part not in ours:
            change = "changed" if gone[row["file"]] else "added"
            gone[row["file"]] = gone[row["file"]][1:]
            rows.append({"change": change, "file": row["file"], "rows": row["rows"]})
    left = [row for of_file in gone.values() for row in of_file]
    rows += [{"change": "gone", "file": row["file"], "rows": row["rows"]} for row in left]
    schema = pa.schema({"change": pa.string(), "file": pa.string(), "rows": pa.int64()})
    return pa.Table.from_pylist(sorted(rows, key=lambda row: (row["change"], row["file"])), schema)


def moved_view(ours: ir.Table, theirs: ir.Table) -> ir.Table:
    """Return the tiles whose fate, label or fold differs: ``slide_id, x, y, before, after``."""
    left, right = (
        side.select(*KEY, state=_state(side)).rename(
            {f"{name}_{number}": name for name in (*KEY, "state")}
        )
        for number, side in enumerate((ours, theirs))
    )
    both = left.outer_join(right, [left[f"{name}_0"] == right[f"{name}_1"] for name in KEY])
    keyed = both.select(
        *(both[f"{name}_0"].coalesce(both[f"{name}_1"]).name(name) for name in KEY),
        before=both.state_0.fill_null(ABSENT),
        after=both.state_1.fill_null(ABSENT),
    )
    return keyed.filter(keyed.before != keyed.after)


def _state(fates: ir.Table) -> ir.StringValue:
    kept = fates.label + " in fold " + fates.fold.cast("string")
    return ibis.ifelse(fates.dropped_by.isnull(), kept, "dropped by " + fates.dropped_by)


def counts_view(ours: ir.Table, theirs: ir.Table) -> ir.Table:
    """Return the kept tiles of each fold and label that differ in number."""
    sides = [
        side.filter(side.dropped_by.isnull()).select("fold", "label", number=ibis.literal(number))
        for number, side in enumerate((ours, theirs))
    ]
    together = ibis.union(*sides)
    counts = together.group_by(["fold", "label"]).aggregate(
        before=together.count(where=together.number == 0),
        after=together.count(where=together.number == 1),
    )
    return counts.filter(counts.before != counts.after).order_by(["fold", "label"])


def _rules(before: Mapping[str, Any], after: Mapping[str, Any]) -> pa.Table:
    ours, theirs = (
        _flat(side["rules"]) | _flat(side["inputs"], "digest of ") for side in (before, after)
    )
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    return pa.table(
        {
            "rule": pa.array(names, pa.string()),
            "before": pa.array([_short(ours.get(name)) for name in names], pa.string()),
            "after": pa.array([_short(theirs.get(name)) for name in names], pa.string()),
        }
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows |= _flat(value, f"{prefix}{name}.")
        else:
            rows[prefix + name] = value
    return rows


def _short(value: object) -> str:
    text = ABSENT if value is None else str(value)
    return text if len(text) < 64 else text[:12]  # a digest
