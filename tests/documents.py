"""What documents say: their shell blocks, the commands in their text, and who parses which."""

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from unittest.mock import patch

from conftest import ROOT

PAGES, DECISIONS = (
    sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / folder).glob("*.md"))
    for folder in ("docs", "docs/decisions")
)
DOCUMENTS = ["README.md", "CONTRIBUTING.md", *PAGES]
PROGRAMS = ("featurestore", "python", "accelerate", "torchrun", "mlflow")


@dataclass(frozen=True)
class Block:
    """The commands of one shell block, and the heading that it stands below."""

    document: str
    heading: str
    commands: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.document}: {self.heading}"


def read(document: str) -> str:
    """Return the text of a document."""
    return (ROOT / document).read_text()


def blocks(document: str) -> list[Block]:
    """Return the shell blocks of a document."""
    found = re.finditer(r"^#+ (.*?)$|^```sh\n(.*?)^```", read(document), re.DOTALL | re.MULTILINE)
    result, heading = [], ""
    for heading_text, body in (match.groups() for match in found):
        if heading_text:
            heading = heading_text
        else:
            result.append(Block(document, heading, tuple(commands(body))))
    return result


def commands(body: str) -> Iterator[str]:
    """Return the commands of a block, without comments; one may take several lines."""
    command = ""
    for line in body.replace("\\\n", " ").splitlines():
        command = f"{command}\n{line}" if command else line.split("  #")[0].strip()
        if command and is_closed(command):
            yield command
            command = ""
    assert not command, command


def is_closed(command: str) -> bool:
    """Return whether no quotation is open."""
    try:
        shlex.split(command)
    except ValueError:
        return False
    return True


def prose(document: str) -> str:
    """Return a document without its blocks of code, its lines joined."""
    return " ".join(re.sub(r"^```.*?^```", "", read(document), flags=re.DOTALL | re.M).split())


def mentioned(document: str) -> list[str]:
    """Return the commands in the text of a document, those with ... in them left out."""
    spans = re.findall(r"`([^`]+)`", prose(document))
    starts = tuple(f"{program} " for program in PROGRAMS)
    bare = (re.sub(r"^([A-Z_]+=\S+ )*", "", span) for span in spans)
    return [span for span in bare if span.startswith(starts) and "..." not in span]


class ParsedError(Exception):
    """Raised in place of what a command would do once its arguments are parsed."""


def parse(command: str) -> None:
    """Have the arguments of a command parsed by its own parser; do nothing else.

    Raises
    ------
    SystemExit, FeatureStoreError
        They are not understood; or, with status 0, its help is all that was asked for.
    """
    for part in re.split(r" && | \| ", command):
        words = shlex.split(re.sub(r" > [\w./-]+$", "", part), comments=True)
        if words and words[0] in PROGRAMS:
            named = re.fullmatch(r"[a-z ]+", " ".join(words))  # a command is named, not written out
            PARSERS[words[0]]([*words[1:], *(["--help"] if named else [])])


def only_parsed(main: Callable[..., object], *arguments: list[str]) -> argparse.Namespace:
    """Call a function that parses arguments with argparse; end it there, return what it read."""
    parse_args, result = argparse.ArgumentParser.parse_args, []

    def ending(parser: argparse.ArgumentParser, *args: object) -> None:
        result.append(parse_args(parser, *args))
        raise ParsedError

    with patch.object(argparse.ArgumentParser, "parse_args", ending):
        try:
            main(*arguments)
        except ParsedError:
            return result[0]
    raise AssertionError(f"{main} parses nothing")


def parse_featurestore(argv: list[str]) -> None:
    from featurestore.console import cli

    cli.arguments(argv)


def parse_accelerate(argv: list[str]) -> None:
    from accelerate.commands.launch import launch_command_parser

    assert argv[0] == "launch"
    options = launch_command_parser().parse_args(argv[1:])
    parse_script(options.training_script, options.training_script_args)


def parse_torchrun(argv: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    options = get_args_parser().parse_args(argv)
    parse_script(options.training_script, options.training_script_args)


def parse_mlflow(argv: list[str]) -> None:
    import click
    from mlflow.cli import cli

    command: click.Command = cli
    try:
        context = command.make_context("mlflow", list(argv))
        while isinstance(command, click.Group):
            rest = [*context.protected_args, *context.args]
            name, command, rest = command.resolve_command(context, rest)
            context = command.make_context(name, rest, parent=context)
    except click.exceptions.Exit as asked:  # for help
        raise SystemExit(asked.exit_code) from asked


def parse_python(argv: list[str]) -> None:
    if argv[0] == "-c":
        compile(argv[1], "-c", "exec")
    elif argv[0] == "-m":
        parse_module(argv[1], argv[2:])
    else:
        parse_script(argv[0], argv[1:])


def parse_module(name: str, argv: list[str]) -> None:
    assert find_spec(name), name
    if argv:
        with patch.object(sys, "argv", [name, *argv]):
            only_parsed(import_module(name).main)


def parse_script(path: str, argv: list[str]) -> None:
    """Have the arguments of a command of train/ parsed."""
    from train import compare, export, maps, promote, replay, submit
    from train.config.load import load, small

    def promotion(argv: list[str]) -> None:
        verb = argv[0] if argv[0] in promote.VERBS else "promote"
        promote.understood(argv[verb != "promote" :], verb)

    by_path: dict[str, Callable[[list[str]], object]] = {
        "train/probe.py": load,
        "train/replay.py": replay.check,
        "train/compare.py": compare.understood,
        "train/export.py": export.understood,
        "train/submit.py": lambda argv: load(only_parsed(submit.main, argv).arguments),
        "train/maps.py": lambda argv: small(maps.Keys, argv, maps.EXAMPLE),
        "train/promote.py": promotion,
    }
    if argv != ["--help"] and path.startswith("train/"):  # others are written out in a document
        by_path[path](argv)


PARSERS = {
    "featurestore": parse_featurestore,
    "python": parse_python,
    "accelerate": parse_accelerate,
    "torchrun": parse_torchrun,
    "mlflow": parse_mlflow,
}
