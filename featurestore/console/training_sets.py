"""What ``featurestore`` does with training sets on disk: writes, lists, compares, verifies them."""

import argparse
import warnings
from typing import Any

import pyarrow as pa
from rich.filesize import decimal

from featurestore.console.settings import open_store, use_tracking
from featurestore.console.tables import print_finding, print_funnel, print_table, print_tables
from featurestore.errors import ArtifactError, FeatureStoreWarning
from featurestore.io import digest_cache, downloads, garbage
from featurestore.io.objects import collection as objects
from featurestore.io.objects import shared
from featurestore.io.objects.shared import SharedStore
from featurestore.io.progress import Rows
from featurestore.printing import Console, say
from featurestore.snapshots import build, collection, diff, pictures, shared_store, tags
from featurestore.snapshots.export import export
from featurestore.snapshots.leakage import raise_leaks
from featurestore.snapshots.verify import damages

FITS = "fits"  # see train/runtime/fit_state.py
EXPORTS = "exports"  # see train/tracking/model_folder.py


def run_materialise(options: argparse.Namespace) -> None:
    """Write a training set, and print its funnel and its leaks."""
    store = open_store(options, **({"storage": options.storage} if options.storage else {}))
    made = build.materialise(store, Rows(Console(stderr=True)))
    name, cohort = next(iter(made.manifest["cohorts"].items()))  # the test tiles, if alone
    print_funnel(cohort["funnel"], Console(), name.replace("_", " "))
    for leak in raise_leaks(made.findings, store.spec.leakage):
        say(f"leak: {leak}")
    if made.lineage:
        say(f"folds: {made.lineage}")
    say(f"snapshot: {made.folder.name}")


def run_verify(options: argparse.Namespace) -> int:
    """Print what is damaged; return 2 if anything is."""
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
        print_finding(row["artifact"], row["wrong"], row["found"], row["to do"], Console())
    say(f"{len(rows)} damaged" if rows else "nothing is damaged")
    return 2 if rows else 0


def _verify_shared(store: SharedStore, repair: bool) -> int:
    damaged = 0
    for one in shared_store.verify(store, repair):
        damaged += 1
        wrong = f"it is damaged in {store.uri}"
        print_finding(str(one.place), wrong, str(one.fault), one.advice, Console())
    say(f"{damaged} damaged" if damaged else "nothing is damaged")
    return 2 if damaged else 0


def _place(options: argparse.Namespace) -> SharedStore:
    """Return the store that a command is to work on."""
    shared.use(options.place)
    store = shared.current()
    assert store is not None
    return store


def run_snapshots(options: argparse.Namespace) -> None:
    """Name training sets, and print all of them."""
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


def run_gc(options: argparse.Namespace) -> None:
    """Remove what was not used for long."""
    keep = max(options.keep, 0)
    if options.place:
        for name in shared_store.collect(_place(options), keep):
            say(f"removed {name}")
        return
    kinds = (
        collection.collect(keep),
        downloads.collect(keep),
        objects.collect(keep),  # after the folders that need them
        pictures.collect(),
        garbage.collect(FITS, keep),
        garbage.collect(EXPORTS, keep),
    )
    for folder in [*(folder for kind in kinds for folder in kind), *garbage.collect_broken()]:
        say(f"removed {folder}")
    if forgotten := digest_cache.drop_stale():
        say(f"forgot the digests of {forgotten} files that are gone or changed")


def run_diff(options: argparse.Namespace) -> None:
    """Print what differs between two training sets."""
    sides = [collection.opened(name) for name in (options.before, options.after)]
    print_tables(diff.difference(*sides), Console())


def run_export(options: argparse.Namespace) -> None:
    """Write a training set as portable Parquet."""
    store, bar = open_store(options), Rows(Console(stderr=True))
    if options.to == "mlflow":
        use_tracking(options)
    made = build.materialise(store, bar)
    for leak in raise_leaks(made.findings, store.spec.leakage):
        warnings.warn(f"leak: {leak}", FeatureStoreWarning, stacklevel=2)
    say(export(store, made, options.to, bar))
