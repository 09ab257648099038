"""What a replay tells at the console: which run it was, its data and its figures, then and now."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from featurestore.console.tables import print_table
from featurestore.printing import Console
from featurestore.redaction import redacted
from train.tracking.provenance import git_commit
from train.tracking.runs import RunRecord


def show_run(record: RunRecord, changes: Mapping[str, str], console: Console) -> None:
    """Print which run it was, by which code, and what was changed of its configuration."""
    for key, value in changes.items():
        console.print(f"changed: {key}={redacted(value)}", soft_wrap=True)
    console.print(f"run: {record.run}", f"its commit: {record.commit or 'not known'}", sep="\n")
    console.print(f"commit here: {git_commit() or 'not known'}", soft_wrap=True)


def show_data(
    record: RunRecord, same: Mapping[str, bool | None], digests: Mapping[str, str], console: Console
) -> None:
    """Print the digests of the inputs, recorded and found, and what they mean."""
    snapshots = [digest for name, digest in record.data.items() if name.startswith("snapshot")]
    same_rules = digests["snapshot"] in snapshots
    before = record.data | {
        "snapshot": digests["snapshot"] if same_rules else min(snapshots, default="")
    }
    table = pa.table({
        "input": list(same),
        "recorded": [before[name][:12] for name in same],
        "found": [digests.get(name, "")[:12] for name in same],
        "same": [{True: "yes", False: "NO", None: "?"}[is_same] for is_same in same.values()],
    })  # fmt: skip
    print_table(table, console, "data, by the beginning of their digests")
    if same["snapshot"] is None:
        console.print(
            "the run was recorded before the rows of a snapshot had a digest of their own: its "
            "figures decide"
        )
    elif same["snapshot"] and not same_rules:
        console.print("the rows are the same: other rules, or another code of the views, make them")
    elif [name for name, is_same in same.items() if not is_same] == ["snapshot"]:
        console.print(
            "the artifacts are the same: the rules or the code of the views have changed; "
            "to tell them apart, replay with the run's commit checked out"
        )


def show_figures(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the figures that differ, then those over all classes; count the others."""
    overall = [row for row in rows if row["same"] and row["figure"].count("/") == 2]
    printed = [row for row in rows if not row["same"]] + overall
    others, rows = len(rows) - len(printed), printed
    table = pa.table({
        "figure": [row["figure"] for row in rows],
        "recorded": [f"{row['recorded']:.6f}" for row in rows],
        "found": [f"{row['found']:.6f}" for row in rows],
        "same": ["yes" if row["same"] else "NO" for row in rows],
    })  # fmt: skip
    print_table(table, console, "figures")
    if others:
        console.print(f"and {others} figures of single classes or groups, all the same")
