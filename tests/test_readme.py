"""What is documented is tested: the commands of the README, and the files that it names."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, launch

from featurestore.console import cli

README = (ROOT / "README.md").read_text()


def commands(heading: str) -> list[str]:
    """Return the lines of the first shell block below a heading."""
    block = re.search(rf"^#+ {heading}\n.*?```sh\n(.*?)```", README, re.DOTALL | re.MULTILINE)
    assert block, heading
    text = block.group(1).replace("\\\n", " ")
    return [line.split("  #")[0].strip() for line in text.splitlines() if line.strip()]


def test_two_commands_stand_first_and_ci_runs_them():
    first = commands("tissue-probe")
    assert first == [
        "pip install -e . && accelerate launch train/probe.py fold=4",
        "pip install -e '.[test]' && pytest",
    ]
    assert README.index("```sh") < 1500  # the first screen
    ci = (ROOT / ".ci" / "run").read_text().replace("install -q", "install")
    assert first[0] in ci
    for part in first[1].split(" && "):
        assert f"\n{part}\n" in ci


@pytest.fixture
def asked(
    digits_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], str]:
    """Return a function that runs a command of `featurestore` where the main command has run."""
    monkeypatch.chdir(digits_home)
    # MLflow keeps stores by name, and other tests have an mlflow.db too.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{digits_home / 'mlflow.db'}")

    def ask(command: str) -> str:
        program, *argv = shlex.split(command.replace(" sql/", f" {ROOT}/sql/"))
        assert program == "featurestore"
        assert cli.main(argv) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return ask


@pytest.mark.slow
@pytest.mark.parametrize("command", commands("Ask"))
def test_questions_run_as_written(command: str, asked: Callable[[str], str]):
    assert asked(command)


@pytest.mark.slow
def test_the_program_is_installed(digits_home: Path):
    done = launch(shlex.split(commands("Ask")[0]), digits_home)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.slow
def test_snapshots_are_kept_as_written(digits_home: Path, asked: Callable[[str], str]):
    for command in commands("Snapshots"):
        asked(command)
    assert (digits_home / "training-set" / "train" / "tiles.parquet").is_file()


@pytest.mark.slow
def test_a_pack_runs_as_written(digits_home: Path):
    command = commands("Many heads at once")[2]  # test_grid.py runs the like
    written = command.replace(" train/", f" {ROOT}/train/") + " tracking.register=false"
    done = launch(shlex.split(written), digits_home)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", [*commands("After the fit"), *commands("Promote")])
def test_other_modes_run_as_written(command: str, digits_home: Path):
    done = launch(shlex.split(command.replace(" train/", f" {ROOT}/train/")), digits_home)
    assert done.returncode == 0, done.stderr


def test_files_that_the_readme_names_are_there():
    named = set(re.findall(r"\]\(([^):]+)\)", README)) | set(
        re.findall(r"`((?:featurestore|train|sql|configs|tests|benchmarks|docs)/[\w./-]*)`", README)
    )
    assert len(named) > 8
    assert not [name for name in named if not (ROOT / name).exists()]


def test_every_file_of_train_has_its_place_in_the_layout():
    table = README.partition("| of `train/` | files |")[2]
    named = re.findall(r"`(\w+)`", table)
    files = {file.stem for file in (ROOT / "train").glob("*.py")} - {"__init__"}
    assert sorted(named) == sorted(files)


def test_every_test_that_the_page_on_reliability_names_is_there():
    page = (ROOT / "docs" / "reliability.md").read_text()
    named = set(re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", page))
    assert len(named) > 40
    missing = [
        f"{file}::{test}"
        for file, test in sorted(named)
        if not (ROOT / "tests" / file).exists()
        or (test and f"def {test}(" not in (ROOT / "tests" / file).read_text())
    ]
    assert not missing
