"""The rooms: which file may name which library, and which names a file may bear."""

import ast
import builtins
import importlib
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT

ROOMS = {
    # library: the only rooms or files that may import it; MLflow's are in pyproject.toml
    "duckdb": {"featurestore/backend"},
    "pyspark": {"featurestore/backend"},
    "deltalake": {"featurestore/io/tables/delta.py"},
    "pyiceberg": {"featurestore/io/tables/iceberg.py"},
    "h5py": {"featurestore/importing/hdf5.py", "featurestore/importing/chunks.py"},
    "lance": {"featurestore/importing/formats/lance.py"},
    "boto3": {"featurestore/io/objects/s3.py"},
    "obstore": {"featurestore/io/objects/clouds.py"},
    "portalocker": {"featurestore/io/locks.py"},
    "ml_dtypes": {"featurestore/embeddings"},
    "matplotlib": {
        "featurestore/console/plots.py",
        "featurestore/drawing.py",
        "featurestore/png.py",
        "train/plots",
    },
    "yaml": {"featurestore/spec", "train/config", "train/submit.py", "train/runtime/manifests.py"},
    "shtab": {"featurestore/console/completion.py"},
    "omegaconf": {"train/config"},
    "accelerate": {"train/runtime"},
    "safetensors": {"train/models/checkpoint.py"},
    "torchmetrics": {"train/fitting/autograd.py"},
    "scipy": {"featurestore/folds/balance.py", "train/evaluation", "train/overlays/regions.py"},
    "shapely": {"featurestore/annotations", "train/overlays"},
    "tifffile": {"train/overlays/ome_tiff.py"},
    "jinja2": {"train/reports/html.py"},
}
PACKAGES = ("featurestore", "train")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FILES = 20  # in a folder, at most
COMMANDS = 7
REFERENCE = re.compile(r"(?<!`)`([A-Za-z_]\w*(?:\.\w+)*)`(?!`)")
PREFIXES = tuple(f"{package}." for package in PACKAGES)


def place(file: Path) -> str:
    """Return where a file lies in the checkout."""
    return file.relative_to(ROOT).as_posix()


def imported(file: Path) -> set[str]:
    """Return the full names of the modules that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("file", SOURCES, ids=place)
def test_each_library_is_named_in_its_room_alone(file: Path):
    libraries = {name.split(".")[0] for name in imported(file)}
    for library in libraries & set(ROOMS):
        rooms = {place(file), *map(place, list(file.parents)[: -len(ROOT.parts)])}
        assert rooms & ROOMS[library], f"{place(file)} imports {library}"


def test_a_room_holds_few_files_and_every_file_of_train_is_a_command():
    folders = {file.parent for file in SOURCES}
    for folder in folders:
        assert len(list(folder.glob("*.py"))) <= FILES + 1, place(folder)
    commands = [file for file in (ROOT / "train").glob("*.py") if file.stem != "__init__"]
    assert len(commands) == COMMANDS
    assert all('if __name__ == "__main__":' in file.read_text() for file in commands)


@pytest.mark.slow
def test_the_engine_stands_alone():
    """It can be timed on a machine that has torch and nothing else of this project's stack."""
    heavy = {"duckdb", "mlflow", "ibis", "pyarrow", "featurestore", "accelerate"}
    modules = "sys, train.engine.trainer, train.engine.solvers.lbfgs"
    code = f"import {modules}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_no_script_shadows_a_module():
    """`accelerate launch train/probe.py` puts train/ first on the path."""
    names = {path.stem for path in (ROOT / "train").iterdir()} - {"__init__", "__pycache__"}
    assert not names & set(sys.stdlib_module_names)
    assert not names & set(packages_distributions())


@pytest.mark.slow
def test_what_a_terminal_is_shown_goes_through_one_door():
    """Rich's own console, and `print` of anything with a name in it, would show names raw."""
    for file in SOURCES:
        if place(file) != "featurestore/printing.py":
            assert "rich.console" not in imported(file), place(file)
            assert "print(f" not in file.read_text().replace(".print(f", ""), place(file)


def test_nobody_touches_the_path():
    for file in SOURCES:
        assert "sys.path" not in file.read_text()


def has(owner: object, names: list[str]) -> bool:
    """Return whether an object has an attribute with an attribute, and so on; fields are some."""
    for name in names:
        if not hasattr(owner, name):
            return name in getattr(owner, "__annotations__", {})
        owner = getattr(owner, name)
    return True


def is_there(reference: str, module: ModuleType, used: set[str]) -> bool:
    """Return whether a name in a docstring is one that its module uses, or can be imported."""
    names = reference.split(".")
    if len(names) == 1:
        return reference in used or hasattr(builtins, reference)
    if has(module, names):
        return True
    for length in range(len(names) - 1, 0, -1):
        try:
            owner = importlib.import_module(".".join(names[:length]))
        except ImportError:
            continue
        return has(owner, names[length:])
    return False


@pytest.mark.slow
def test_no_two_files_of_tests_have_one_name():
    """Pytest imports them by their names, whatever their folders."""
    names = [file.name for file in (ROOT / "tests").rglob("*.py") if file.name != "conftest.py"]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_name_what_there_is(package: str):
    """`name` is a name of Python, ``text`` anything else; of a module, which may be a page that
    --help prints, only what begins with a package is looked at."""
    for file in (file for file in SOURCES if place(file).startswith(package)):
        tree = ast.parse(file.read_text())
        used = {
            value
            for node in ast.walk(tree)
            for field, value in ast.iter_fields(node)
            if field in ("id", "attr", "arg", "name", "asname") and isinstance(value, str)
        }
        module = importlib.import_module(place(file.with_suffix("")).replace("/", "."))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
                names = REFERENCE.findall(ast.get_docstring(node) or "")
                if isinstance(node, ast.Module):
                    names = [name for name in names if name.startswith(PREFIXES)]
                for name in names:
                    assert is_there(name, module, used), f"{place(file)} tells of `{name}`"
