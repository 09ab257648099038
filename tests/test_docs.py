"""What is documented is tested: every command, every path, every link, and what is drawn."""

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tools_output
from conftest import ROOT, launch, launch_line
from documents import DECISIONS, DOCUMENTS, Block, blocks, mentioned, parse, prose, read
from test_walkthroughs import WALKTHROUGHS
from versions import BETTER, GOOD, MODEL, register, write_data

from featurestore.console import cli
from featurestore.errors import FeatureStoreError
from featurestore.examples import SyntheticConfig, write_synthetic
from featurestore.io import mlflow_artifacts
from train import promote

BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]
CI = "`.ci/run` does it, in a fresh environment"
NOT_RUN = {
    "pip install -e '.[train]' && accelerate launch train/probe.py fold=4": CI,
    "pip install -e '.[test]' && pytest": CI,
    "pip install -e '.[test]'": CI,
    'pytest -m "not slow"': "it is what runs this",
    "ruff check . && ruff format --check .": CI,
    "mypy": CI,
    "lint-imports": CI,
    "docker build -t registry/tissue-probe:1 .": "tests/test_packaging.py reads the Dockerfile",
    "docker build -t registry/tissue-probe:1 --build-arg "
    "TORCH_INDEX=https://download.pytorch.org/whl/cu128 .": "likewise",
    "pip install -e '.[spark]'": "the extra `test` has it",
    "accelerate launch train/probe.py data=virchow2 fold=4 data.runs.embeddings=RUN "
    "data.runs.folds=RUN data.runs.tiles=RUN": "three runs of your own MLflow",
}
"""Commands that no test here runs, and why; their arguments are parsed all the same."""
ELSEWHERE = {
    "docs/training.md: Many heads at once": "tests/train/fitting/test_grid.py::"
    "test_every_tile_is_predicted_by_the_head_that_did_not_see_it",
    "docs/training.md: Several encoders": "tests/train/test_several_encoders.py::"
    "test_the_leaderboard_says_what_the_predictions_say",
    "docs/howto.md: Labels in doubt": "tests/featurestore/annotations/test_review.py::"
    "test_doubted_labels_are_ranked_and_come_back_as_they_were_corrected",
    "docs/spark.md": "tests/featurestore/backend/test_engines.py::"
    "test_a_store_on_spark_makes_the_same_training_set",
    "docs/server.md": "tests/train/tracking/test_server.py::test_the_walk_through_runs_as_written",
    **dict.fromkeys(
        WALKTHROUGHS, "tests/test_walkthroughs.py::test_a_page_runs_from_its_first_line_to_its_last"
    ),
    "docs/registry.md: Serve": "tests/train/tracking/test_serving.py::"
    "test_a_request_is_answered_with_the_models_probabilities",
}
"""Documents, or sections of them, whose commands another test runs."""
LEFT = {
    "featurestore init .": "data.yaml",
    "featurestore plot thresholds": "thresholds.png",
    "featurestore catalog feature_views.duckdb": "feature_views.duckdb",
    "featurestore cover --tiles slides.parquet --annotations 'annotations/*.geojson'     "
    "--classes classes.yaml --to tiles.parquet": "tiles.parquet",
    "featurestore export --to training-set": "training-set/train/tiles.parquet",
    "featurestore split data=data.yaml --test 0.2 --group patient_id --stratify label "
    "--to held-out": "held-out/test_tiles.parquet",
}
"""What a command leaves where it was run."""
SILENT = {"featurestore gc --keep 5", "featurestore gc --store /mnt/shared/tissue --keep 20"}
"""There is nothing to remove."""
SHORT = " tracking.register=false max_epochs=3"


def run_here(block: Block) -> list[str]:
    """Return the commands of a block that are run by the tests below."""
    if {block.document, str(block)} & set(ELSEWHERE):
        return []
    return [command for command in block.commands if collapsed(command) not in NOT_RUN]


def collapsed(command: str) -> str:
    return re.sub(r" +", " ", command)


RUN = [replace(block, commands=tuple(run_here(block))) for block in BLOCKS if run_here(block)]


# -- commands -------------------------------------------------------------------------------------


COMMANDS = {
    *(command for block in BLOCKS for command in block.commands),
    *(command for document in DOCUMENTS for command in mentioned(document)),
}


@pytest.mark.filterwarnings("ignore:'protected_args'")  # of Click 8: nothing else has them
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=[pytest.mark.slow] * command.startswith("mlflow "))
        for command in sorted(COMMANDS)
    ],
)
def test_the_arguments_of_every_command_are_understood(command: str):
    Path("data.yaml").write_text("data: {name: own}")
    try:
        parse(command)
    except SystemExit as ended:
        assert ended.code == 0


@pytest.mark.parametrize(
    "command",
    [
        "featurestore sql --fomat csv x",
        "featurestore descrbe",
        "python train/probe.py fold=4 learning=1",
        "accelerate launch --multi-gpus train/probe.py fold=4",
        "python train/submit.py slurm --gpus 2 folds=4",
        "python train/promote.py model=tissue-probe vresion=1",
        "python -m benchmarks.engine --rowz 1",
    ],
)
def test_what_is_no_argument_is_not_understood(command: str):
    with pytest.raises((SystemExit, FeatureStoreError)) as refused:
        parse(command)
    assert getattr(refused.value, "code", 2) == 2


def test_no_command_is_excused_that_no_document_shows():
    shown = {collapsed(command) for block in BLOCKS for command in block.commands}
    assert set(NOT_RUN) <= shown
    ci = read(".ci/run").replace("install -q", "install")
    for command in (command for command, reason in NOT_RUN.items() if reason == CI):
        for part in command.split(" && "):
            assert re.search(rf"(^| && ){re.escape(part)}( && |$)", ci, re.MULTILINE), part
    for place in ELSEWHERE:
        assert place in {*DOCUMENTS, *map(str, BLOCKS)}


@pytest.fixture
def bring(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Block], tuple[Path, str]]:
    """Return a function that makes what the commands of a block need: (folder, MLflow's URI)."""

    def make(block: Block) -> tuple[Path, str]:
        text = "\n".join(block.commands)
        if block.document == "docs/registry.md":
            return tmp_path, two_versions(tmp_path)
        if "featurestore import" in text:
            write_foreign(tmp_path)
            return tmp_path, ""
        if "featurestore cover" in text:
            write_annotations(tmp_path)
            return tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}"
        if any(name in text for name in ("kfold_tiles.parquet", "featurestore init", "data.yaml")):
            write_synthetic(tmp_path, SyntheticConfig(rows=2000, slides=20))
        if "data.yaml" in text and "featurestore init" not in text:
            assert cli.main(["init", str(tmp_path), "--to", str(tmp_path / "data.yaml")]) == 0
        digits_home = request.getfixturevalue("digits_home")
        uri = f"sqlite:///{digits_home / 'mlflow.db'}"
        if "@champion" in text:
            mlflow.MlflowClient(uri).set_registered_model_alias(MODEL, "champion", "1")
        questions = all(command.startswith("featurestore ") for command in block.commands)
        return digits_home if questions and "data.yaml" not in text else tmp_path, uri

    return make


def write_foreign(folder: Path) -> None:
    """Write what other tools do, where the documents say."""
    cohort = tools_output.tiles()
    tools_output.trident(folder / "job" / "20x_256px_0px_overlap" / "features_uni_v1", cohort)
    tools_output.stamp(folder / "stamp" / "uni", cohort)
    rows = {"case": ["A"], "left": [0], "top": [0], "features": [[1.0, 2.0]]}
    pq.write_table(pa.table(rows), folder / "own.parquet")


def write_annotations(folder: Path) -> None:
    """Write a slide of 2 x 2 tiles, one polygon of QuPath on it, and its classes."""
    sides = {f"{name}_{axis}": [size] for name, size in (("extent", 448), ("tile_extent", 224))
             for axis in "xy"}  # fmt: skip
    pq.write_table(pa.table({"id": ["slide"], **sides}), folder / "slides.parquet")
    (folder / "classes.yaml").write_text("class_indices: {Fat: 0}")
    (folder / "annotations").mkdir()
    geometry = {"type": "Polygon", "coordinates": [[[0, 0], [300, 0], [300, 300]]]}
    drawn = {"type": "Feature", "geometry": geometry, "properties": {"classification": "Fat"}}
    (folder / "annotations" / "slide.geojson").write_text(json.dumps(drawn))


def two_versions(folder: Path) -> str:
    """Register two versions, of which the first is the champion."""
    uri = mlflow_artifacts.use_tracking(f"sqlite:///{folder / 'mlflow.db'}")
    write_data()
    for noise in (GOOD, BETTER):
        register(noise)
    assert promote.main([f"model={MODEL}", "version=1"]) == 0
    return uri


@pytest.mark.slow
@pytest.mark.parametrize("block", RUN, ids=str)
def test_a_block_runs_as_written(
    block: Block,
    bring: Callable[[Block], tuple[Path, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """From its first command to its last, in one folder."""
    folder, uri = bring(block)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # MLflow keeps stores by name
    for command in block.commands:
        written = re.sub(r"(^|\s)(train|sql)/", rf"\1{ROOT}/\2/", as_of(command, uri))
        written = written.replace("/mnt/shared", str(folder / "shared"))  # no other run's
        if written.startswith("featurestore ") and ">" not in written:
            assert cli.main(shlex.split(written)[1:]) == 0, command + capsys.readouterr().err
            assert capsys.readouterr().out or command in SILENT, command
        else:
            done = launch_line(written, folder, MLFLOW_TRACKING_URI=uri)
            assert done.returncode == 0, command + done.stdout + done.stderr
        assert (folder / LEFT.get(command, "")).exists(), command


def as_of(command: str, uri: str) -> str:
    """Return a command with the id of a run for RUN; a fit of few epochs that registers nothing."""
    fit = "train/probe.py" in command and "mode=" not in command
    if "RUN" in shlex.split(command):
        version = mlflow.MlflowClient(uri).get_model_version(MODEL, "1")
        return command.replace(" RUN", f" {version.run_id}")
    return command + SHORT * fit


@pytest.mark.slow
def test_the_program_is_installed(digits_home: Path):
    done = launch(["featurestore", "check"], digits_home)
    assert done.returncode == 0, done.stderr
    assert done.stdout


# -- paths, links, names --------------------------------------------------------------------------

FOLDERS = "featurestore|train|sql|configs|tests|benchmarks|docs"


@pytest.mark.parametrize("document", [*DOCUMENTS, *DECISIONS])
def test_every_path_that_a_document_names_is_there(document: str):
    text = read(document)
    paths = set(re.findall(rf"(?<![\w./-])((?:{FOLDERS})/[\w./-]*[\w/])", text))
    paths -= {"train/loss"}  # a metric
    assert not sorted(path for path in paths if not (ROOT / path).exists())


@pytest.mark.parametrize("document", [*DOCUMENTS, *DECISIONS])
def test_every_link_leads_somewhere(document: str):
    for target in re.findall(r"\]\(([^)]+)\)", read(document)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text()), target


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_name_is_defined_where_a_document_says(document: str):
    for name, path in re.findall(r"`(\w+)` in `([\w/]+\.py)`", prose(document)):
        assert name in defined(ROOT / path), f"{name} in {path}"


def defined(file: Path) -> set[str]:
    """Return the names that a module defines at its top."""
    names: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    return names


def test_every_test_that_a_document_names_is_there():
    text = "\n".join(map(read, [*DOCUMENTS, *DECISIONS]))
    named = re.findall(r"(tests/[\w/]+\.py)(?:::(test_\w+))?", text)
    named += [tuple(place.split("::")) for place in ELSEWHERE.values()]
    assert len(set(named)) > 60
    missing = [
        f"{file}::{test}"
        for file, test in sorted(set(named))
        if not (ROOT / file).exists() or (test and f"def {test}(" not in (ROOT / file).read_text())
    ]
    assert not missing


@pytest.mark.parametrize(("page", "head", "number"), [
    ("docs/reliability.md", "| kind ", 60), ("docs/formats.md", "| what | where ", 20),
])  # fmt: skip
def test_a_page_names_a_test_in_every_row(page: str, head: str, number: int):
    text = read(page).partition("\n## What it does")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith(head)]
    assert len(rows) > number
    assert not [row for row in rows if "`tests/" not in row and not row.endswith("the same |")]


# -- what is drawn --------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["featurestore", "train"])
def test_the_floors_are_drawn_as_the_contracts_have_them(package: str):
    drawn = re.search(rf"```text\n(?:.*?^)?{package}/\n(.*?)(?:^ +\||```)",
                      read("docs/architecture.md"), re.DOTALL | re.MULTILINE)  # fmt: skip
    assert drawn
    floors = [set(re.split(r" \| ", line.strip().split("   ")[0]))
              for line in drawn.group(1).splitlines()]  # fmt: skip
    contracts = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts
                if contract.get("containers") == [package]]  # fmt: skip
    assert floors == [set(layer.split(" | ")) for layer in layers]
    folders = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    assert folders <= set().union(*floors)
