"""What each entry point may import: help, refusals and questions wait for nothing that they lack.

CPU seconds are in docs/benchmarks.md (`benchmarks/startup.py`); here modules are counted, which no
clock disturbs. Every entry point runs in a process of its own, forked from one that has imported
nothing.
"""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from conftest import ROOT

from featurestore.console import cli
from featurestore.importing.registry import FORMATS, reader

TRAINING = {"torch", "accelerate", "torchmetrics", "mlflow", "sklearn", "scipy", "matplotlib"}
ENGINES = {"ibis", "duckdb", "pyarrow", "pandas", "numpy", "pyspark"}
SCRIPTS = ("probe", "replay", "compare", "promote", "export", "maps")
COMMANDS = (
    "init", "sql", "funnel", "views", "check", "describe", "catalog", "shell", "plot", "cover",
    "label-issues", "split", "materialise", "snapshots", "verify", "gc", "diff", "export", "import",
    "completion",
)  # fmt: skip
FORKED = """
import json, os, runpy, sys
for path, argv in json.load(sys.stdin):
    if not os.fork():
        sys.argv = [path, *argv]
        sys.stdout = sys.stderr = open(os.devnull, "w")
        status = 0
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            status = end.code
        roots = sorted({name.partition(".")[0] for name in sys.modules})
        os.write(1, (json.dumps([status, roots]) + "\\n").encode())
        os._exit(0)
    os.wait()
"""


def started(folder: Path, *calls: list[str]) -> list[tuple[int, set[str]]]:
    """Return the exit status of each entry point, and the packages that it imported."""
    asked = json.dumps([(str(ROOT / path), argv) for path, *argv in calls])
    done = subprocess.run(
        [sys.executable, "-c", FORKED], input=asked, cwd=folder, text=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True,
    )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return [(status or 0, set(roots)) for status, roots in answers]


@pytest.mark.slow
def test_help_and_refusals_import_neither_engines_nor_what_training_needs(tmp_path: Path):
    calls = [
        *([f"train/{script}.py", "--help"] for script in SCRIPTS),
        ["train/submit.py", "slurm", "--help"],
        ["featurestore/console/cli.py", "--help"],
        ["featurestore/console/cli.py", "funnel", "--help"],
        ["featurestore/console/cli.py", "import", "--help"],
        ["featurestore/console/cli.py", "label-issues", "--help"],
        ["featurestore/console/cli.py", "--version"],
        ["featurestore/console/cli.py", "completion", "bash"],
        *([f"train/{script}.py", "--version"] for script in (*SCRIPTS, "submit")),
    ]
    refused = [
        ["train/probe.py", "flod=4"],
        ["train/probe.py", "sweep.k=[2]"],
        ["train/promote.py", "verison=7"],
        ["train/compare.py", "one_run", "another", "otuput=here"],
        ["featurestore/console/cli.py", "funnel", "tresholds.Fat=1"],
    ]
    outcomes = started(tmp_path, *calls, *refused)
    assert [status for status, _ in outcomes] == [0] * len(calls) + [2] * len(refused)
    for call, (_, imported) in zip([*calls, *refused], outcomes, strict=True):
        assert not imported & (TRAINING | ENGINES), call
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_question_about_a_known_cohort_asks_neither_mlflow_nor_scikit_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Nor are folds assigned anew: those of this machine are found."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["materialise"]) == 0
    assigned = sorted((tmp_path / ".featurestore" / "folds").rglob("*.parquet"))
    place = "featurestore/console/cli.py"
    calls = ([place, "describe"], [place, "sql", "select count(*) from fates"])
    for status, imported in started(tmp_path, *calls):
        assert status == 0
        assert not imported & (TRAINING - {"scipy"})
    assert sorted((tmp_path / ".featurestore" / "folds").rglob("*.parquet")) == assigned
    assert len(assigned) == 1
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_names_a_function_that_does_its_work(command: str):
    parser = cli.parser()
    [commands] = [action for action in parser._actions if action.dest == "command"]
    choices = commands.choices
    assert set(choices) == set(COMMANDS)
    parsers = [choices[command]]
    if command == "import":
        [formats] = [action for action in parsers[0]._actions if action.dest == "format"]
        parsers = list(formats.choices.values())
    for one in parsers:
        assert callable(cli.load_command(one.get_default("run")))


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_has_a_reader(name: str):
    assert reader(name) is import_module(f"featurestore.importing.formats.{name}").slides
