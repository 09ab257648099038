"""The SQL prompt: completion, statements over several lines, errors, history; a real terminal."""

import sys
from io import StringIO
from pathlib import Path

import pexpect
import pytest
from conftest import CLASSES, TABLES
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from rich.console import Console

from featurestore import FeatureStore, StoreSpec
from featurestore.console import shell

VIEWS = {
    "labels": ["slide_id", "label", "roi_coverage_Connective-Tissue"],
    "funnel": ["step", "reason", "tiles"],
}


def offered(text: str) -> list[str]:
    names = shell.Names(VIEWS).get_completions(Document(text), CompleteEvent())
    return [name.text for name in names]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select * from fu", ["funnel"]),
        ("sel", ["select"]),
        ("select * from labels where la", ["label", "labels"]),
        ("select * from funnel where re", ["reason"]),
        ("select * from funnel where sl", []),  # no column of the views that are named
        ("select roi", ['"roi_coverage_Connective-Tissue"']),
        ('select "roi_coverage_Conn', ['"roi_coverage_Connective-Tissue"']),
        ("select ", []),
    ],
)
def test_completion_offers_what_fits_in_the_text(text: str, expected: list[str]):
    assert offered(text) == expected


def test_names_are_quoted_where_sql_would_misread_them():
    assert [shell.quoted(name) for name in ("tiles", "Öl & Fett", 'a"b', "select")] == [
        "tiles", '"Öl & Fett"', '"a""b"', '"select"',
    ]  # fmt: skip


@pytest.fixture
def store(artifacts: TABLES) -> FeatureStore:
    places = {key.removeprefix("data."): value for key, value in artifacts().items()}
    return FeatureStore(StoreSpec(**{**CLASSES, **places}))


def typed(store: FeatureStore, text: str) -> str:
    """Type a text at the prompt; return what it answers."""
    said = StringIO()
    with create_pipe_input() as keys:
        keys.send_text(text)
        shell.run(store, Path("home"), keys, DummyOutput(), Console(file=said, width=120))
    return said.getvalue()


def test_a_statement_of_several_lines_is_answered(store: FeatureStore):
    said = typed(store, "select label, count(*) as n\rfrom fates\rgroup by label order by 1;\r\x04")
    assert "Fat" in said
    assert "Muscle" in said
    assert "2 rows" in said


def test_an_error_is_printed_and_the_prompt_goes_on(store: FeatureStore):
    said = typed(
        store,
        "select nope from fates;\rdrop view fates;\rselect date 'infinity';\r"
        "select 41 + 1 as n;\r\x04",
    )
    assert "nope" in said
    assert "cannot be given as table" in said
    assert "Only one SELECT" in said
    assert "42" in said


def test_views_and_their_columns_are_described(store: FeatureStore):
    assert "fold of the cross-validation" in typed(store, "\\d fates\r\\q\r")
    assert "how many tiles each reason drops" in typed(store, "\\d\r\\q\r")


def test_interrupt_drops_the_line(store: FeatureStore):
    assert "7 rows" not in typed(store, "select nope \x03select 1 as one;\r\x04")
    assert "1 rows" in typed(store, "select nope \x03select 1 as one;\r\x04")


def test_history_is_kept(store: FeatureStore):
    typed(store, "select 42 as n;\r\x04")
    assert "+select 42 as n;" in Path("home/history").read_text()


@pytest.mark.slow
def test_in_a_terminal_with_a_pager(store: FeatureStore, tmp_path: Path):
    code = f"""
from pathlib import Path
from featurestore import FeatureStore, StoreSpec
from featurestore.console import shell
shell.run(FeatureStore({store.spec!r}), Path("home"))
"""
    child = pexpect.spawn(
        sys.executable, ["-c", code], cwd=str(tmp_path), timeout=60, dimensions=(24, 100),
        env={"PAGER": "cat", "TERM": "xterm", "PATH": "/usr/bin:/bin"}, encoding="utf-8",
    )  # fmt: skip
    child.expect("views>")
    child.send("select count(*) as n from fates;\r")
    child.expect("12")
    child.expect("1 rows")
    child.send("select range as n from range(300);\r")  # longer than the screen
    child.expect("299")
    child.expect("300 rows")
    child.send("\x04")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
