"""Arguments of ``featurestore split``."""

import math
from pathlib import Path
from typing import Any

from featurestore.spec.split_rules import LABEL


def add(commands: Any) -> None:
    """Add the command to a parser's."""
    split = commands.add_parser("split", help="tiles to train on and tiles to test, by groups")
    split.add_argument(
        "--test", type=share, default=0.2, metavar="SHARE", help="share to hold out (0.2)"
    )
    split.add_argument(
        "--group", default="slide_id", metavar="COLUMN",
        help="of tiles or slides, for example patient_id: never divided (slide_id)",
    )  # fmt: skip
    split.add_argument(
        "--stratify", type=columns, default=(LABEL,), metavar="COLUMNS",
        help=f"of tiles or slides, and {LABEL}, with commas: kept alike ({LABEL})",
    )  # fmt: skip
    split.add_argument("--seed", type=int, default=0, help="between groups that are alike (0)")
    split.add_argument(
        "--to", type=Path, required=True, metavar="FOLDER",
        help="new, or that of an earlier split, which is extended",
    )  # fmt: skip
    split.add_argument("--new", action="store_true", help="assign every group anew")
    split.add_argument("--no-log", action="store_true", help="log no run to MLflow")
    split.set_defaults(run="split:run")


def share(text: str) -> float:
    """Return the number that an argument is; a percentage is none."""
    number = float(text)
    if math.isnan(number):
        raise ValueError(text)
    return number


def columns(text: str) -> tuple[str, ...]:
    """Return the columns that an argument names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
