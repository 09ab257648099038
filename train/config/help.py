"""What --help prints; bad arguments are refused before anything heavy is imported."""

import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence

from featurestore.errors import ConfigError, FeatureStoreError
from featurestore.printing import is_quiet, print_error, say
from featurestore.spec.keys import documented
from featurestore.spec.places import unread_default
from train.config.hyperparameters import method, unused
from train.config.load import CONFIGS, GROUPS, LATE, load
from train.config.ranks import prints_errors
from train.config.schema import MISSING, Config

NAMES = 26  # characters that keys take in the help, at least
UNBROKEN = 10_000  # columns of a pipe


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
        "  --quiet, of every script: no progress, no notes; errors and results. --version: which.",
        "",
        *keys(Config),
    ]
    return "\n".join(lines)


def keys(schema: type) -> list[str]:
    """Return a line of help for every key, broken where a terminal is narrower."""
    lines = []
    for name, default, doc in documented(schema):
        default_text = "" if default in (None, {}, [], MISSING) else f" [{default}]"
        line = f"  {name:<{NAMES}}{doc}{default_text}"
        lines += broken(line, NAMES + 2)
    return lines


def broken(line: str, indent: int) -> list[str]:
    """Return a line as several where the terminal is narrower; all but the first are indented."""
    width = shutil.get_terminal_size((UNBROKEN, 0)).columns
    return textwrap.wrap(line, width, subsequent_indent=" " * indent, break_long_words=False,
                         break_on_hyphens=False)  # fmt: skip


def check_or_exit(argv: list[str]) -> None:
    """Print the help and leave, or refuse bad arguments with exit status 2, or return."""
    help_or_refuse(argv, usage, _check)


def run_command(
    argv: Sequence[str], usage: Callable[[], str], work: Callable[[list[str]], int]
) -> int:
    """Print the help, or do the work of a command; return the exit status, 2 after a refusal.

    Parameters
    ----------
    usage
        Returns the help.
    work
        Is given the arguments; returns the exit status.
    """
    if _asks_help(argv):
        print(usage(), flush=True)
        return 0
    try:
        return work([*argv])
    except FeatureStoreError as error:
        print_error(error)
        return 2


def _asks_help(argv: Sequence[str]) -> bool:
    return bool({"-h", "--help"} & set(argv))


def help_or_refuse(
    argv: Sequence[str], usage: Callable[[], str], check: Callable[[list[str]], object]
) -> None:
    """Print the help and leave, or leave with exit status 2 if a check refuses, or return.

    Parameters
    ----------
    usage
        Returns the help.
    check
        Is given the arguments.
    """

    def work(arguments: list[str]) -> int:
        check(arguments)
        return 0

    status = run_command(argv, usage, work)
    if status or _asks_help(argv):
        sys.exit(status)


def _check(argv: list[str]) -> None:
    try:
        config = load(argv)
    except ConfigError:
        if not prints_errors(os.environ):
            # The first says the same and its launcher ends this one, unless arguments differ.
            time.sleep(LATE)
        raise
    if prints_errors(os.environ) and not is_quiet():
        for note in _notes(argv, config):
            say(note, sys.stderr)


def _notes(argv: Sequence[str], config: Config) -> Iterator[str]:
    """Yield what arguments that are understood may not mean as they were meant."""
    names = {argument.partition("=")[0] for argument in argv}
    if not any(name.partition(".")[0] == "data" for name in names) and (note := unread_default()):
        yield note
    if idle := [key for key in unused(config) if key in names]:
        context = method(config) if config.mode == "fit" else f"mode={config.mode}"
        yield f"without effect: {', '.join(idle)} with {context}"
