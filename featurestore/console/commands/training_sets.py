"""Arguments of what `featurestore` does with training sets on disk."""

import argparse
from typing import Any, get_args

from featurestore.spec.literals import Storage


def add(commands: Any) -> None:
    """Add the commands to a parser's."""
    make = commands.add_parser("materialise", help="write the training set, once")
    make.add_argument("--storage", choices=get_args(Storage), help="type of the embeddings")
    make.set_defaults(run="training_sets:run_materialise")

    listed = commands.add_parser("snapshots", help="the training sets that were written")
    listed.add_argument("--tag", metavar="TAG", help="name the last used one, or SNAPSHOT")
    listed.add_argument("--untag", metavar="TAG", help="take a name away")
    listed.add_argument("snapshot", nargs="?", metavar="SNAPSHOT", help="the one to name")
    listed.add_argument(
        "--store", metavar="PLACE", default=argparse.SUPPRESS, help="as before the command"
    )
    listed.set_defaults(run="training_sets:run_snapshots", optional="snapshot")

    verified = commands.add_parser(
        "verify", help="read every byte of the artifacts and of what is kept; say what is damaged"
    )
    _add_place(verified, "read what lies in this store instead, every byte of it")
    verified.add_argument(
        "--repair",
        action="store_true",
        help="remove what is damaged in the store, and send what is whole here again",
    )
    verified.set_defaults(run="training_sets:run_verify")

    gc = commands.add_parser(
        "gc", help="remove old training sets, downloads and killed fits, never one in use"
    )
    gc.add_argument("--keep", type=int, default=5,
                    help="how many of the last used stay of each kind; a killed fit that stays "
                    "can be resumed (5)")  # fmt: skip
    _add_place(gc, "remove in this store instead what no snapshot there needs, and nobody has used "
               "for a day")  # fmt: skip
    gc.set_defaults(run="training_sets:run_gc")

    differ = commands.add_parser("diff", help="what differs between two training sets")
    differ.add_argument("before", help="a snapshot's name, or the beginning of it")
    differ.add_argument("after")
    differ.set_defaults(run="training_sets:run_diff")

    out = commands.add_parser("export", help="the training set as portable Parquet")
    out.add_argument("--to", required=True, help="`mlflow`, or a folder that is not there yet")
    out.set_defaults(run="training_sets:run_export")


def _add_place(command: argparse.ArgumentParser, text: str) -> None:
    """Add a store to work on, which that of the environment does not stand for."""
    command.add_argument("--store", metavar="PLACE", dest="place", help=text)
