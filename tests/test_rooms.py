"""The rooms: which file may name which library, and which names a file may bear."""

import ast
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from conftest import ROOT

ALLOWED = {
    # library: the only files that may import it
    "duckdb": {"featurestore/backend.py"},
    "mlflow": {"featurestore/mlflow_artifacts.py", "featurestore/names.py",
               "featurestore/preflight.py", "featurestore/proxied.py", "train/journal.py",
               "train/registry.py", "train/tracking.py"},
    "yaml": {"featurestore/typed.py", "featurestore/spec.py", "train/config.py",
             "train/submit.py"},
    "omegaconf": {"train/compose.py", "train/schema.py"},
    "matplotlib": {"train/figures.py", "featurestore/figures.py"},
    "pyspark": {"featurestore/backend.py"},
    "boto3": {"featurestore/objects.py"},
    "portalocker": {"featurestore/shelf.py"},
    "prompt_toolkit": {"featurestore/shell.py"},
    "ml_dtypes": {"featurestore/matrix.py"},
    "scipy": {"featurestore/balance.py", "train/calibration.py", "train/evidence.py",
              "train/regions.py", "train/resample.py"},
    "shapely": {"train/regions.py", "train/qupath.py"},
    "tifffile": {"train/pyramid.py"},
    "safetensors": {"train/checkpoint.py"},
    "jinja2": {"train/page.py"},
    "accelerate": {"train/agreement.py", "train/meeting.py", "train/probe.py", "train/session.py"},
    "torchmetrics": {"train/metrics.py"},
}  # fmt: skip
# The views: expressions alone, on whatever engine.
LAZY = {"classes", "joins", "labels", "thresholds", "funnel", "pictures", "precision"}
SOURCES = sorted([*(ROOT / "featurestore").glob("*.py"), *(ROOT / "train").glob("*.py")])
# Heads, losses, optimizers and metrics ignore each other and all else.
PURE = {"heads", "losses", "optimizers", "metrics", "order", "product"}


def imported(file: Path) -> set[str]:
    """Return the full names of the modules that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("file", SOURCES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_each_library_is_named_in_its_room_alone(file: Path):
    place = f"{file.parent.name}/{file.name}"
    for library, files in ALLOWED.items():
        if library in {name.split(".")[0] for name in imported(file)}:
            assert place in files, f"{place} imports {library}"


@pytest.mark.parametrize("file", sorted((ROOT / "featurestore").glob("*.py")), ids=lambda p: p.name)
def test_the_library_knows_nothing_of_training(file: Path):
    tops = {name.split(".")[0] for name in imported(file)}
    assert not tops & {"torch", "accelerate", "omegaconf", "train", "torchmetrics"}


@pytest.mark.parametrize("name", sorted(LAZY))
def test_views_import_ibis_alone(name: str):
    tops = {n.split(".")[0] for n in imported(ROOT / "featurestore" / f"{name}.py")}
    assert tops - set(sys.stdlib_module_names) <= {"ibis", "featurestore"}


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_parts_import_only_torch_torchmetrics_numpy(name: str):
    tops = {n.split(".")[0] for n in imported(ROOT / "train" / f"{name}.py")}
    assert tops - set(sys.stdlib_module_names) <= {"torch", "torchmetrics", "numpy"}


def test_the_engine_stands_alone():
    """It can be timed on a machine that has torch and nothing else of this project's stack."""
    heavy = {"duckdb", "mlflow", "ibis", "pyarrow", "featurestore", "accelerate"}
    code = f"import sys, train.engine, train.solver; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_no_script_shadows_a_module():
    """`accelerate launch train/probe.py` puts train/ first on the path."""
    names = {path.stem for path in (ROOT / "train").glob("*.py")} - {"__init__"}
    assert not names & set(sys.stdlib_module_names)
    assert not names & set(packages_distributions())


def test_what_a_terminal_is_shown_goes_through_one_door():
    """Rich's own console, and `print` of anything with a name in it, would show names raw."""
    for file in SOURCES:
        place = f"{file.parent.name}/{file.name}"
        if place != "featurestore/console.py":
            assert "rich.console" not in imported(file), place
        if place != "featurestore/printing.py":
            assert "print(f" not in file.read_text().replace(".print(f", ""), place


def test_nobody_touches_the_path():
    for file in SOURCES:
        assert "sys.path" not in file.read_text()
