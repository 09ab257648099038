"""``featurestore split``: a held-out set, whole groups of it, alike in what matters."""

import argparse
from pathlib import Path
from typing import Any

import pyarrow as pa

from featurestore.console import outputs
from featurestore.console.settings import open_store, use_tracking
from featurestore.console.tables import print_table
from featurestore.io import mlflow_artifacts, names, preflight
from featurestore.io.progress import Rows
from featurestore.printing import Console, say
from featurestore.spec.split_rules import SplitRules
from featurestore.splits import split as splits
from featurestore.splits.folder import MANIFEST, TILES
from featurestore.splits.split import Request, Split

SHOWN = 20  # strata in the terminal


def run(options: argparse.Namespace) -> None:
    """Write a split, and print its balance."""
    rules = SplitRules(options.test, options.group, options.stratify, options.seed)
    rules.check()
    # Test tiles are what this makes: a configuration may name those of the split already.
    store = open_store(options, test_tiles=None)
    for name in TILES:
        outputs.check(store, options.to / name, "set data.tiles to the tiles that it is to divide")
    if not options.no_log:
        use_tracking(options)
        preflight.check(names.tracking(), mlflow_artifacts.EXPERIMENT, None)
    request = Request(options.to, options.new, log=not options.no_log)
    made = splits.split(store, rules, request, Rows(Console(stderr=True), "tiles"))
    _print(made, rules, options.to)


def _print(made: Split, rules: SplitRules, to: Path) -> None:
    first, *strata = made.balance
    largest = sorted(strata, key=lambda row: -(row["train"] + row["test"]))[:SHOWN]
    shown = [first, *(row for row in strata if row in largest)]
    title = f"tiles that the label rules keep, by {', '.join(rules.stratify) or 'side alone'}"
    print_table(pa.Table.from_pylist([_line(row) for row in shown]), Console(), title)
    if len(strata) > SHOWN:
        say(f"... and {len(strata) - SHOWN:,} smaller strata, in {to / MANIFEST}")
    if made.unembedded and any(made.unembedded.values()):
        sides = ", ".join(f"{number:,} of {side}" for side, number in made.unembedded.items())
        say(f"without an embedding, which are dropped where they are used: {sides}")
    say(f"split: {made.origin.described(made.is_kept)}")
    say(f"{to}: train on {TILES[0]}, test on {TILES[1]}" + (f"; {made.uri}" if made.uri else ""))


def _line(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"share": f"{row['share']:.1%}"}
