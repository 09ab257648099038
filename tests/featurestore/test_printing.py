"""What a terminal is shown: no name of an artifact steers it, forges a line or changes its text."""

import io
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TABLES

from featurestore.console import cli
from featurestore.console.tables import print_table
from featurestore.errors import ArtifactError
from featurestore.printing import Console, printable

RED, BACKWARDS, TWO_LINES = "\x1b[31mred", "a\u202eb", "x\nerror: forged"
HOSTILE = {
    RED: r"\x1b[31mred",
    BACKWARDS: r"a\u202eb",
    TWO_LINES: r"x\nerror: forged",
    "\x9b31m\r\x07\x00": r"\x9b31m\r\x07\x00",
    "zero\u200bwidth": r"zero\u200bwidth",
    "[red]markup[/]": "[red]markup[/]",
    ":smile:": ":smile:",
    "Öl & 病理": "Öl & 病理",
    "\udcff": r"\udcff",
}


@pytest.mark.parametrize("name", HOSTILE, ids=HOSTILE.values())
def test_names_are_shown_as_text_wherever_rich_draws_them(name: str):
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=True, color_system=None, width=200)
    console.print(f"line {name}", highlight=False)
    if name != "\udcff":  # which Arrow does not take
        print_table(pa.table({f"head {name}": [f"cell {name}"]}), console, f"title {name}")
        for place in ("title", "head", "cell"):
            assert f"{place} {HOSTILE[name]}" in drawn.getvalue()
    assert f"line {HOSTILE[name]}" in drawn.getvalue()
    assert is_text(drawn.getvalue())
    assert printable(name) == HOSTILE[name]


def is_text(said: str) -> bool:
    return all(line.isprintable() for line in said.split("\n"))


def test_an_error_has_three_lines_whatever_it_names():
    refusal = ArtifactError(f"{RED} is wrong", found=TWO_LINES, fix=BACKWARDS)
    assert len(str(refusal).split("\n")) == 3
    assert is_text(str(refusal))


@pytest.fixture
def hostile(artifacts: TABLES) -> list[str]:
    """Return a configuration of tiles whose slides, classes and columns bear such names."""
    named = artifacts(
        {
            "slide_id": [f"{RED}{n // 3}" for n in range(12)],
            "roi_coverage_Fat": None,
            f"roi_coverage_{TWO_LINES}": [0.9 if n % 2 else 0.0 for n in range(12)],
            BACKWARDS: [TWO_LINES] * 12,
        }
    )
    Path("store.yaml").write_text(
        f"""
data: {{tiles: {named["data.tiles"]}, embeddings: {named["data.embeddings"]}}}
class_indices: {{"x\\nerror: forged": 0, Muscle: 1}}
thresholds: {{"x\\nerror: forged": 0.5, Muscle: 0.5}}
"""
    )
    return ["--config", "store.yaml"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["views"], 0), (["describe"], 0), (["check"], 0), (["funnel"], 0),
        (["sql", "select * from fates"], 0), (["sql", f'select "{RED}" from fates'], 2),
        (["catalog", f"{RED}.duckdb"], 0), (["plot", "funnel", "-o", RED], 0),
        (["materialise"], 0), (["sql", "-f", RED], 2),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)  # fmt: skip
def test_no_command_prints_a_name_raw(
    hostile: list[str], argv: list[str], status: int, capsys: pytest.CaptureFixture[str]
):
    assert cli.main([*hostile, *argv]) == status
    said = capsys.readouterr()
    assert is_text(said.out), said.out
    assert is_text(said.err), said.err
    assert "\nerror: forged" not in said.out + said.err


def test_a_broken_key_is_named_in_its_spelling(
    hostile: list[str], capsys: pytest.CaptureFixture[str]
):
    tiles = pq.read_table("in/tiles.parquet")
    pq.write_table(pa.concat_tables([tiles, tiles.slice(0, 1)]), "in/tiles.parquet")
    assert cli.main([*hostile, "funnel"]) == 2
    said = capsys.readouterr().err
    assert r"slide_id='\x1b[31mred0'" in said
    assert is_text(said)


@pytest.mark.slow
def test_data_for_programs_are_shown_if_a_person_reads_them(
    hostile: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Raw to a file or a pipe, spelled on a terminal; Parquet is refused there."""
    ask = [*hostile, "sql", "select distinct slide_id from fates order by 1", "--format"]
    assert cli.main([*ask, "csv"]) == 0
    assert f"{RED}0" in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.main([*ask, "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == r'"\x1b[31mred0"'
    assert cli.main([*ask, "parquet"]) == 2
    assert "not for a terminal" in capsys.readouterr().err
