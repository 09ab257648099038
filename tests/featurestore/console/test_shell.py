"""DuckDB's command line over the views: in a pipe and in a real terminal, sealed and read-only."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pexpect
import pytest
import yaml
from conftest import CLASSES, ROOT, TABLES

from featurestore import FeatureStore, StoreSpec
from featurestore.console import cli, shell

START = "import sys; from featurestore.console import cli; sys.exit(cli.main())"
COMMAND = [sys.executable, "-c", START, "--config", "store.yaml", "shell"]
STRANGE = "p*[1]'s.parquet"  # a pattern, and a quotation mark, were it not a file's name
Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(artifacts: TABLES, tmp_path: Path) -> FeatureStore:
    places = {key.removeprefix("data."): value for key, value in artifacts().items()}
    places["tiles"] = str(Path(places["tiles"]).rename(tmp_path / STRANGE))
    (tmp_path / "store.yaml").write_text(yaml.safe_dump({**CLASSES, "data": places}))
    return FeatureStore(StoreSpec(**{**CLASSES, **places}))


@pytest.fixture
def ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Ask:  # fmt: skip
    """Send statements to the shell as a pipe would; return its status, answers and errors."""
    monkeypatch.setenv("HOME", str(tmp_path))  # no other history, no other .duckdbrc

    def ask(store: FeatureStore, text: str, external: bool = False) -> tuple[int, str, str]:
        read, write = os.pipe()
        os.write(write, text.encode())
        os.close(write)
        terminal = os.dup(0)
        os.dup2(read, 0)
        try:
            status = shell.run(store, external=external)
        finally:
            os.dup2(terminal, 0)
            os.close(terminal)
            os.close(read)
        return status, *capfd.readouterr()

    return ask


@pytest.mark.slow
def test_a_pipe_is_answered_and_the_views_can_be_kept(store: FeatureStore, tmp_path: Path):
    done = subprocess.run(
        [*COMMAND, "views.duckdb"], input="select count(*) as n from fates;\n", cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "12" in done.stdout
    assert (tmp_path / "views.duckdb").is_file()


def test_statements_and_commands_are_answered(store: FeatureStore, ask: Ask, tmp_path: Path):
    text = ".mode list\nselect count(*) as n from fates;\nselect 41 + 1 as m;\n"
    assert ask(store, text) == (0, "n\n12\nm\n42\n", "")
    assert not list(tmp_path.glob("*.duckdb"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("drop view fates;", "read-only"),
        ("create table mine as select 1;", "read-only"),
        ("copy (select 1) to 'mine.csv';", "disabled by configuration"),
        ("select * from read_text('store.yaml');", "disabled by configuration"),
        ("attach 'mine.duckdb';", "disabled by configuration"),
        ("install httpfs;", "disabled"),
        ("set enable_external_access = true;", "locked"),
        ("select getenv('HOME');", "disabled"),
        (".shell touch mine", "-safe mode"),
        (".output mine", "-safe mode"),
        (".open mine.duckdb", "-safe mode"),
    ],
)
def test_nothing_is_written_and_nothing_else_is_read(
    statement: str, words: str, store: FeatureStore, ask: Ask, tmp_path: Path
):
    before = {path.name for path in tmp_path.iterdir()}
    status, answers, errors = ask(store, f"{statement}\n")
    assert (status, answers) == (1, "")
    assert words in errors
    assert {path.name for path in tmp_path.iterdir()} - before <= {".featurestore"}


def test_external_reads_other_files_and_changes_no_view(
    store: FeatureStore, ask: Ask, tmp_path: Path
):
    (tmp_path / "other.csv").write_text("n\n7\n")
    text = ".mode list\nfrom 'other.csv';\ndrop view fates;\n"
    status, answers, errors = ask(store, text, external=True)
    assert (status, answers) == (1, "n\n7\n")
    assert "read-only" in errors


def test_limits_are_those_of_the_store(store: FeatureStore, ask: Ask):
    limited = FeatureStore(store.spec, threads=1, memory_limit="1GB")
    text = "select current_setting('threads'), current_setting('memory_limit');"
    assert ask(limited, f".mode list\n.headers off\n{text}\n")[1] == "1|953.6 MiB\n"


def test_assigned_folds_are_read(artifacts: TABLES, ask: Ask):
    """They lie in a file of their own, which a sealed session opens as well."""
    places = {k.removeprefix("data."): v for k, v in artifacts({"fold": None}).items()}
    store = FeatureStore(StoreSpec(**{**CLASSES, **places, "k": 2}))
    status, answers, errors = ask(store, ".mode list\nselect count(fold) > 0 as n from folds;\n")
    assert (status, answers, errors) == (0, "n\ntrue\n", "")


def test_a_store_on_spark_is_asked_by_duckdb(store: FeatureStore, ask: Ask):
    store.spec = replace(store.spec, backend="pyspark")
    assert ask(store, ".mode list\nselect 1 as n;\n") == (0, "n\n1\n", "")


def test_a_missing_command_line_is_one_refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: FeatureStore
):
    monkeypatch.setattr(shell, "PACKAGE", "duckdb_cli_is_not_here")
    assert cli.main(["--config", "store.yaml", "shell"]) == 2
    message = capsys.readouterr().err
    assert message.count("error: ") == 1
    assert "pip install 'tissue-probe[shell]'" in message


@pytest.mark.slow
def test_in_a_terminal(store: FeatureStore, tmp_path: Path):
    """Statements over lines, completion, a query that is interrupted, history, end of input."""
    child = pexpect.spawn(
        COMMAND[0], COMMAND[1:], cwd=str(tmp_path), timeout=60, dimensions=(40, 100),
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "TERM": "xterm"},
        encoding="utf-8",
    )  # fmt: skip
    child.expect("views")
    child.send("select count(*)\rfrom fates;\r")
    child.expect("12")
    child.send("drop view fates;\r")
    child.expect("read-only")
    child.send("select sum(tiles) as kept from fun")
    child.expect("fun")
    child.send("\t")
    child.expect("funnel")  # is offered
    child.send("nel;\r")
    child.expect("int")
    child.send("select sum(a.range * b.range) from range(1000000) a, range(1000000) b;\r")
    child.expect("b;")
    time.sleep(1)  # the query runs, for hours if nobody ends it
    child.sendintr()
    child.expect(r"\^C")
    child.send("select 'still ' || 'here';\r")
    child.expect("still here")
    child.send("\x04")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 1  # as in a pipe: a statement was refused
    assert "drop view fates;" in (tmp_path / ".duckdb_history").read_text()
