"""What --help prints; bad arguments are refused before anything heavy is imported."""

import os
import sys
import time

from featurestore.errors import ConfigError
from featurestore.printing import print_error
from featurestore.spec.keys import documented
from train.config.load import CONFIGS, GROUPS, LATE, load
from train.config.ranks import speaks
from train.config.schema import MISSING, Config


def usage() -> str:
    """Return the help: every key, its default and what it is."""
    lines = [
        "usage: accelerate launch train/probe.py [key=value ...]",
        "",
        "  data=NAME classes=NAME experiment=NAME  pick a file of configs/",
        *(
            f"      {group}: {', '.join(sorted(p.stem for p in (CONFIGS / group).glob('*.yaml')))}"
            for group in GROUPS
        ),
        "  Text is taken as it is written; null unsets what has no default. Lists: key=[a,b].",
        "  --quiet, of every script: no progress, no notes; errors alone. --version: its version.",
        "",
        *keys(Config),
    ]
    return "\n".join(lines)


def keys(schema: type) -> list[str]:
    """Return a line of help for every key."""
    lines = []
    for name, default, doc in documented(schema):
        default_text = "" if default in (None, {}, MISSING) else f" [{default}]"
        lines.append(f"  {name:<26}{doc}{default_text}")
    return lines


def check_or_exit(argv: list[str]) -> None:
    """Print the help and leave, or refuse bad arguments with exit status 2, or return."""
    if {"-h", "--help"} & set(argv):
        print(usage())
        sys.exit(0)
    try:
        load(argv)
    except ConfigError as error:
        if not speaks(os.environ):
            # The first says the same and its launcher ends this one, unless arguments differ.
            time.sleep(LATE)
        print_error(error)
        sys.exit(2)
