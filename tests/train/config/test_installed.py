"""Without the extra `train` each script ends with one refusal, before it imports any of it."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

from train.config import installed

SCRIPTS = sorted(path for path in (ROOT / "train").glob("*.py") if path.stem != "__init__")
HIDING = """
import importlib.machinery
find = importlib.machinery.PathFinder.find_spec
def find_spec(name, *given):
    return None if name.split(".")[0] in ("torch", "omegaconf") else find(name, *given)
importlib.machinery.PathFinder.find_spec = find_spec
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_each_script_looks_first_and_imports_then(script: Path):
    docstring, system, looking, guard, *_ = ast.parse(script.read_text()).body
    assert isinstance(docstring, ast.Expr)
    assert ast.unparse(system) == "import sys"
    assert ast.unparse(looking) == "from train.config import installed"
    assert ast.unparse(guard) == "if __name__ == '__main__':\n    installed.check_or_exit()"


def test_what_is_looked_for_is_what_the_extra_brings():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=\[;]", each)[0] for each in extras["optional-dependencies"]["train"]}
    assert names == set(installed.NEEDED)


def test_nothing_is_said_where_all_is_there():
    installed.check_or_exit()


@pytest.mark.slow
def test_one_refusal_names_the_extra(tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text(HIDING)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, str(ROOT / "train" / "probe.py"), "fold=4"], cwd=tmp_path,
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "probe.py needs the extra `train`, which is not installed" in done.stderr
    assert "found: no omegaconf, torch in " in done.stderr
    assert "to do: pip install -e '.[train]'" in done.stderr
    assert "Traceback" not in done.stderr
