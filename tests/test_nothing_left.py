"""In an empty folder, what is refused leaves it empty, and names the tracking store it asked."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from featurestore.console import cli
from train import compare, probe, promote

Main = Callable[[Sequence[str]], int]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return tmp_path / "empty"


@pytest.mark.parametrize(
    ("main", "argv", "words"),
    [
        (probe.main, ["mode=test", "checkpoint=models:/none/1"], "has no models:/none/1"),
        (promote.main, ["model=none", "version=1"], "has no model none"),
        (promote.main, ["history", "model=none"], "has no model none"),
        (promote.main, ["rollback", "model=none"], "has no model none"),
        (compare.main, ["a" * 32, "b" * 32], f"has no run {'a' * 32}"),
        (cli.main, ["sql", "select 1 as a", "runs=abc"], "has no run abc"),
        (cli.main, ["label-issues", "--to", "out", "runs=abc"], "has no run abc"),
    ],
)
def test_a_question_about_runs_makes_no_store_and_names_the_one_it_asked(
    main: Main, argv: list[str], words: str, empty: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(argv) == 2
    message = capsys.readouterr().err
    assert words in message
    assert f"there is no database at sqlite:///{empty}/mlflow.db" in message
    assert not list(empty.iterdir())


@pytest.mark.parametrize(
    ("main", "argv", "words"),
    [
        (probe.main, ["fold=9"], "Fold 9 does not exist"),
        (probe.main, ["fold=9", "tracking.enabled=false"], "Fold 9 does not exist"),
        (probe.main, ["fold=1", "data.tiles=nowhere.parquet"], "no Parquet file at nowhere"),
        (probe.main, ["fold=1", "resume=true"], "There is nothing to resume"),
        (probe.main, ["fold=1", "sweep.tissue_prop_min=[0.2,1.1]"], "Every tile is dropped"),
        (cli.main, ["sql", "selec 1"], "could not run the query"),
    ],
)
@pytest.mark.slow
def test_digits_that_were_not_used_are_not_kept(
    main: Main, argv: list[str], words: str, empty: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(argv) == 2
    assert words in capsys.readouterr().err
    assert not list(empty.iterdir())


def test_digits_that_were_there_before_stay(empty: Path):
    assert cli.main(["funnel"]) == 0
    assert cli.main(["sql", "selec 1"]) == 2
    assert list((empty / ".featurestore" / "digits").glob("*/kfold_tiles.parquet"))
