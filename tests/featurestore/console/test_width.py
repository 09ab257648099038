"""At 80 columns no line is longer, and no name or figure is cut: of few classes and of many."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from conftest import TABLES
from rich.cells import cell_len

from featurestore.console import cli
from featurestore.console.tables import print_findings, print_table, wrapped
from featurestore.printing import Console
from featurestore.validation import COLUMNS

NAMES = [f"Tissue {n:02} of the-long-named-class, Größe".ljust(40, "x") for n in range(12)]
SLIDES = [f"slide-{n:02}-of-a-cohort-with-long-names-too" for n in range(3)]


def written(artifacts: TABLES, name: str, threshold: float) -> str:
    """Write a cohort of 36 tiles, a third of each slide, and a file that names it."""
    tiles, number = range(36), len(NAMES)
    shares = {
        f"roi_coverage_{label}": [0.6 + n / 100 if n % number == index else 0.0 for n in tiles]
        for index, label in enumerate(NAMES)
    }
    keys = {"slide_id": [SLIDES[n // number] for n in tiles], "x": [*tiles], "y": [0] * 36}
    none = {"roi_coverage_Fat": None, "roi_coverage_Muscle": None}
    named = artifacts(
        {**keys, **none, **shares, "fold": [n // number % 2 for n in tiles]},
        {**{key: values[1:] for key, values in keys.items()},
         "embedding": [[float(n), 1.0] for n in tiles[1:]]},
    )  # fmt: skip
    content = {
        "class_indices": {label: index for index, label in enumerate(NAMES)},
        "thresholds": dict.fromkeys(NAMES, threshold),
        "data": {key.removeprefix("data."): uri for key, uri in named.items()},
        "leakage": "warn",
    }
    Path(name).write_text(yaml.safe_dump(content, allow_unicode=True))
    return f"data={name}"


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Return a function that runs a command at 80 columns and returns its lines."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*argv: str) -> list[str]:
        assert cli.main([*argv]) in (0, 2)
        lines = capsys.readouterr().out.splitlines()
        assert [line for line in lines if cell_len(line) > 80] == []
        return lines

    yield run


@pytest.mark.slow
def test_commands_keep_names_and_figures_whole(artifacts: TABLES, printed):
    """What is asked of a cohort; of two training sets, one of which has lost a class's tiles."""
    first = written(artifacts, "first.yaml", 0.5)
    described = "\n".join(printed("describe", first))
    assert all(name in described for name in NAMES)
    assert re.search(r"q05: 0.612\n.* max: 0.84\n", described), described
    checked = printed("check", first)
    assert checked[0] == "warning: all: tiles without an embedding (1 row)"
    assert f"    slide_id='{SLIDES[0]}', x=0, y=0" in checked
    assert "0 errors, 1 warning" in checked
    assert any(line.split()[1::2] == ["input", "36", "100.0%"] for line in printed("funnel", first))
    asked = "\n".join(printed("sql", "select * from fates order by x", first))
    assert all(word in asked for word in (*SLIDES, *(f"roi_coverage_{name}:" for name in NAMES)))

    snapshots = [
        printed("materialise", data)[-1].removeprefix("snapshot: ")
        for data in (first, written(artifacts, "second.yaml", 0.75))
    ]
    listed = "\n".join(printed("snapshots"))
    assert all(name in listed for name in snapshots)
    differing = "\n".join(printed("diff", *snapshots))
    assert all(f"{NAMES[n]} in fold 0" in differing for n in range(1, 12))
    assert all(f"thresholds.{name}" in differing for name in NAMES)


def test_a_table_that_is_too_wide_is_printed_as_records():
    file = io.StringIO()
    table = pa.table({
        "class": ["a" * 30, "b" * 12], "tiles": [7, 12345], "f1": [0.123456, 98765.4321],
        "why": ["short", " ".join(["a long reason"] * 4)], "id": ["c" * 60, ""],
    })  # fmt: skip
    print_table(table, Console(width=52, file=file), "a title that says what is below, for whom")
    assert file.getvalue().splitlines() == [
        "a title that says what is below, for whom",
        f"class: {'a' * 30}  tiles: 7",
        "  f1: 0.1235",
        "  why: short",
        "  id:",
        f"    {'c' * 60}",  # one word is never broken, whatever the width
        f"class: {'b' * 12}{' ' * 18}  tiles: 12345",
        "  f1: 98765",
        "  why: a long reason a long reason a long reason a",
        "    long reason",
        "  id: ",
    ]


def test_headings_are_broken_before_a_table_is():
    file = io.StringIO()
    table = pa.table({"slide": ["a" * 20], "tiles without an embedding": [1]})
    print_table(table, Console(width=40, file=file))
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 40
    assert "a" * 20 in lines[-2]
    heading = [line.split()[-2] for line in lines[1:-3]]
    assert heading == ["tiles", "without", "an", "embedding"]


def test_prose_is_broken_where_the_width_is_known(monkeypatch: pytest.MonkeyPatch):
    """A pipe gets a line for each part of a finding, which is how other programs want it."""
    row = {"severity": "error", "artifact": "tiles", "wrong": "wrong " * 20, "found": "found " * 20,
           "to do": "look", "rows": None}  # fmt: skip
    findings = pa.Table.from_pylist([row], COLUMNS)
    for columns, number in ((None, 3), ("80", 5)):
        if columns:
            monkeypatch.setenv("COLUMNS", columns)
        file = io.StringIO()
        print_findings(findings, Console(file=file))
        lines = file.getvalue().splitlines()
        assert len(lines) == number
        content = f"error: tiles: {row['wrong']}found: {row['found']}to do: look"
        assert " ".join(" ".join(lines).split()) == content
    assert wrapped("", 10) == [""]
