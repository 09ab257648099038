"""What ``featurestore`` does with training sets on disk: writes, lists, compares, verifies them."""

import argparse
import warnings
from typing import Any

import pyarrow as pa
from rich.filesize import decimal

from featurestore.console.settings import open_store
from featurestore.console.tables import print_funnel, print_table, print_tables
from featurestore.embeddings.layout import STORED
from featurestore.errors import ArtifactError, FeatureStoreWarning
from featurestore.io import downloads, garbage, ledger
from featurestore.io.objects import collection as objects
from featurestore.io.objects import shared
from featurestore.io.objects.shared import Shared
from featurestore.io.progress import Rows
from featurestore.printing import Console, say
from featurestore.snapshots import build, collection, diff, shared_store, tags
from featurestore.snapshots.export import export
from featurestore.snapshots.leakage import raise_leaks
from featurestore.snapshots.verify import damages

FITS = "fits"  # see train/runtime/fit_state.py


def add(commands: Any) -> None:
    """Add the commands to a parser's."""
    make = commands.add_parser("materialise", help="write the training set, once")
    make.add_argument("--storage", choices=list(STORED), help="type of the embeddings")
    make.set_defaults(run=_materialise)

    listed = commands.add_parser("snapshots", help="the training sets that were written")
    listed.add_argument("--tag", metavar="TAG", help="name the last used one, or SNAPSHOT")
    listed.add_argument("--untag", metavar="TAG", help="take a name away")
    listed.add_argument("snapshot", nargs="?", metavar="SNAPSHOT", help="the one to name")
    listed.add_argument(
        "--store", metavar="PLACE", default=argparse.SUPPRESS, help="as before the command"
    )
    listed.set_defaults(run=_snapshots, optional="snapshot")

    verified = commands.add_parser(
        "verify", help="read every byte of the artifacts and of what is kept; say what is damaged"
    )
    _add_place(verified, "read what lies in this store instead, every byte of it")
    verified.add_argument(
        "--repair",
        action="store_true",
        help="remove what is damaged in the store, and send what is whole here again",
    )
    verified.set_defaults(run=_verify)

    gc = commands.add_parser(
        "gc", help="remove old training sets, downloads and killed fits, never one in use"
    )
    gc.add_argument("--keep", type=int, default=5, help="how many of the last used stay (5)")
    _add_place(gc, "remove in this store instead what no snapshot there needs, and nobody has used "
               "for a day")  # fmt: skip
    gc.set_defaults(run=_gc)

    differ = commands.add_parser("diff", help="what differs between two training sets")
    differ.add_argument("before", help="a snapshot's name, or the beginning of it")
    differ.add_argument("after")
    differ.set_defaults(run=_diff)

    out = commands.add_parser("export", help="the training set as portable Parquet")
    out.add_argument("--to", required=True, help="`mlflow`, or a folder that is not there yet")
    out.set_defaults(run=_export)


def _add_place(command: argparse.ArgumentParser, text: str) -> None:
    """Add a store to work on, which that of the environment does not stand for."""
    command.add_argument("--store", metavar="PLACE", dest="place", help=text)


def _materialise(options: argparse.Namespace) -> None:
    store = open_store(options, **({"storage": options.storage} if options.storage else {}))
    made = build.materialise(store, Rows(Console(stderr=True)))
    name, cohort = next(iter(made.manifest["cohorts"].items()))  # the test tiles, if alone
    print_funnel(cohort["funnel"], Console(), name.replace("_", " "))
    for leak in raise_leaks(made.findings, store.spec.leakage):
        say(f"leak: {leak}")
    if made.lineage:
        say(f"folds: {made.lineage}")
    say(f"snapshot: {made.folder.name}")


def _verify(options: argparse.Namespace) -> int:
    if options.place:
        return _verify_shared(_place(options), options.repair)
    if options.repair:
        raise ArtifactError(
            "Here nothing is to be repaired by hand",
            found="--repair without a store",
            fix="leave it out: what is damaged here is set aside, and made again when it is asked "
            "for; or name the store after the command: verify --store PLACE --repair",
        )
    rows = damages(open_store(options)).to_pylist()
    for row in rows:
        say(f"{row['artifact']}: {row['wrong']}\n  found: {row['found']}\n  to do: {row['to do']}")
    say(f"{len(rows)} damaged" if rows else "nothing is damaged")
    return 2 if rows else 0


def _verify_shared(store: Shared, repair: bool) -> int:
    damaged = 0
    for one in shared_store.verify(store, repair):
        damaged += 1
        say(f"{one.place} is damaged in {store.uri}\n  found: {one.fault}\n  to do: {one.advice}")
    say(f"{damaged} damaged" if damaged else "nothing is damaged")
    return 2 if damaged else 0


def _place(options: argparse.Namespace) -> Shared:
    """Return the store that a command is to work on."""
    shared.use(options.place)
    store = shared.current()
    assert store is not None
    return store


def _snapshots(options: argparse.Namespace) -> None:
    if options.untag:
        say(f"{tags.untag(options.untag)} is not called {options.untag} any more")
    if options.tag:
        wanted = options.snapshot or next(iter(collection.names()), "")
        name = collection.full_name(wanted)
        shared_store.share_snapshot(name)
        tags.tag(options.tag, name)
    print_table(
        pa.Table.from_pylist([_line(row) for row in collection.listing().to_pylist()]), Console()
    )


def _line(row: dict[str, Any]) -> dict[str, Any]:
    """Return what the listing shows of a snapshot, in the width of a terminal."""
    return {
        "snapshot": " ".join([row["snapshot"], *row["tags"]]),
        "kept of": f"{row['kept']:,} of {row['rows']:,}",
        "embeddings": f"{row['dim']} {row['storage']} {decimal(row['embeddings'])}",
        "parts": row["parts"],
        "own": decimal(row["bytes"]),
        "last use": "now" if row["in_use"] else row["used"][:16],  # to the minute
    }


def _gc(options: argparse.Namespace) -> None:
    keep = max(options.keep, 0)
    if options.place:
        for name in shared_store.collect(_place(options), keep):
            say(f"removed {name}")
        return
    kinds = (
        collection.collect(keep),
        downloads.collect(keep),
        objects.collect(keep),  # after the folders that need them
        garbage.collect(FITS, keep),
    )
    for folder in [*(folder for kind in kinds for folder in kind), *garbage.collect_broken()]:
        say(f"removed {folder}")
    if forgotten := ledger.forget_gone():
        say(f"forgot the digests of {forgotten} files that are gone or changed")


def _diff(options: argparse.Namespace) -> None:
    sides = [collection.opened(name) for name in (options.before, options.after)]
    print_tables(diff.difference(*sides), Console())


def _export(options: argparse.Namespace) -> None:
    store, bar = open_store(options), Rows(Console(stderr=True))
    made = build.materialise(store, bar)
    for leak in raise_leaks(made.findings, store.spec.leakage):
        warnings.warn(f"leak: {leak}", FeatureStoreWarning, stacklevel=2)
    say(export(store, made, options.to, bar))
