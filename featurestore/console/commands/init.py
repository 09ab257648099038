"""Arguments of ``featurestore init``."""

from pathlib import Path
from typing import Any

FLAGS = ("tiles", "test_tiles", "embeddings", "slides")


def add(commands: Any) -> None:
    """Add the command to a parser's."""
    init = commands.add_parser("init", help="own data: look at what is there, write data.yaml")
    init.add_argument("places", nargs="*", metavar="FOLDER|URI", help="where the artifacts are")
    for name in FLAGS:
        init.add_argument(f"--{name.replace('_', '-')}", metavar="URI", help=f"as data.{name}=URI")
    init.add_argument("--to", type=Path, default=Path("data.yaml"), help="(data.yaml)")
    init.add_argument("--yes", action="store_true", help="ask nothing, take what comes first")
    init.add_argument("--force", action="store_true", help="replace a file that is there")
    init.set_defaults(run="init:run", optional="places")
