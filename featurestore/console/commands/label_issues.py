"""Arguments of ``featurestore label-issues``."""

from pathlib import Path
from typing import Any

from featurestore.console.commands.cover import factor, pixels

LIMIT = 500


def add(commands: Any) -> None:
    """Add the command to a parser's."""
    issues = commands.add_parser(
        "label-issues", help="labels that a run (runs=RUN) doubts, ranked, and as boxes for QuPath"
    )
    issues.add_argument("--to", type=Path, required=True, help="a folder, for example review")
    issues.add_argument("--limit", type=int, default=LIMIT, help=f"how many at most ({LIMIT})")
    issues.add_argument(
        "--tile-size", type=pixels, metavar="PIXELS", help="224, or 224,192 (that of the slides)"
    )
    issues.add_argument(
        "--downsample", type=factor, metavar="FACTOR",
        help="pixels of full resolution in one of x and y (1, or that of the slides)",
    )  # fmt: skip
    issues.set_defaults(run="label_issues:run")
