"""What is built: a wheel with the library alone."""

import re
import subprocess
import sys
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.mark.slow
def test_wheel_holds_the_library_alone(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"featurestore"}
    assert {"featurestore/store.py", "featurestore/py.typed"} <= set(names)
    assert [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]


def test_no_range_can_pull_gigabytes_of_gpu_packages():
    """torch is bounded to the range whose CPU build satisfies it, DuckDB to what Ibis speaks."""
    bounds = {re.split(r"[<>=!;\[ ]", line)[0]: line for line in requires("tissue-probe") or []}
    assert "<2.14" in bounds["torch"]
    assert ">=2.6" in bounds["torch"]
    assert "<2" in bounds["duckdb"].split(",")[0] + bounds["duckdb"]
    assert "lightning" not in {n for n, line in bounds.items() if "extra" not in line}


def test_top_level_is_the_agreed_one():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\n")
    tops = {name.split("/")[0] for name in tracked if name}
    agreed = {"pyproject.toml", "featurestore", "train", "sql", "configs", "tests", "README.md",
              "benchmarks", "docs", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"}  # fmt: skip
    assert {top for top in tops if not top.startswith(".")} <= agreed
