"""The door: its first screen, and the rooms that it shows. Its commands: tests/test_docs.py."""

import re
import tomllib

import pytest
from conftest import ROOT
from documents import blocks, read

README = read("README.md")


def test_two_commands_stand_first_and_ci_runs_them():
    first = blocks("README.md")[0]
    assert first.heading == "tissue-probe"
    assert list(first.commands) == [
        "pip install -e '.[train]' && accelerate launch train/probe.py fold=4",
        "pip install -e '.[test]' && pytest",
    ]
    assert README.index("```sh") < 1500  # the first screen
    ci = read(".ci/run").replace("install -q", "install")
    assert first.commands[0] in ci
    for part in first.commands[1].split(" && "):
        assert f"\n{part}\n" in ci


def test_a_door_is_short():
    assert len(README.splitlines()) <= 160
    assert len(blocks("README.md")[2].commands) == 6
    glossary = README.partition("## Ten words")[2].partition("\n## ")[0]
    assert len(re.findall(r"^\| (?!word )\w+ \|", glossary, re.MULTILINE)) == 10


def tree(package: str) -> list[str]:
    """Return what the tree of a package names, from the top."""
    drawn = re.search(rf"```text\n{package}/\n(.*?)```", README, re.DOTALL)
    assert drawn, package
    return [line.split()[0] for line in drawn.group(1).splitlines()]


@pytest.mark.parametrize("package", ["featurestore", "train"])
def test_the_tree_shows_every_room_from_the_highest_to_the_lowest(package: str):
    rooms = [name.rstrip("/") for name in tree(package) if name.endswith("/")]
    folders = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    assert sorted(rooms) == sorted(folders)
    contracts = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts
                if contract.get("containers") == [package]]  # fmt: skip
    floor = {room: number for number, layer in enumerate(layers) for room in layer.split(" | ")}
    assert [floor[room] for room in rooms] == sorted(floor[room] for room in rooms)


def test_the_tree_shows_every_command_and_no_file_that_is_not_there():
    shown = {name for name in tree("train") if name.endswith(".py")}
    assert shown == {path.name for path in (ROOT / "train").glob("*.py")} - {"__init__.py"}
    assert all((ROOT / "featurestore" / name).exists() for name in tree("featurestore"))


def test_what_the_library_exports_is_said_to_stay():
    from featurestore import __all__ as exported

    unreleased = read("CHANGELOG.md").partition("## Unreleased")[2].partition("\n## ")[0]
    assert all(name in unreleased for name in exported)
