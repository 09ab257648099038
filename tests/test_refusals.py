"""The refusals: one clear error, exit status 2, nothing written, no traceback."""

import math
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import ROOT, TABLES, launch
from refused import arguments

from train import probe
from train.config import help

PROBE = str(ROOT / "train" / "probe.py")

FOLDS = [n // 6 for n in range(12)]
KEYS = list(range(12))


def with_(column: list, row: int, value: object) -> list:
    return [*column[:row], value, *column[row + 1 :]]


COVERAGE = [0.9 if n % 2 else 0.0 for n in range(12)]
VECTORS = [[float(n % 2), 1.0, float(n)] for n in range(12)]

REFUSED = {
    # name: (tiles, embeddings, arguments, words of the message)
    "no coverage column": (
        {"roi_coverage_Fat": None, "roi_coverage_Muscle": None}, {}, ["fold=1"],
        ["no roi_coverage_<Class> column"],
    ),
    "class without threshold": (
        {"roi_coverage_Nerve": [0.0] * 12}, {}, ["fold=1", "class_indices.Nerve=2"],
        ["'Nerve'", "thresholds"],
    ),
    "label outside class_indices": (
        {"roi_coverage_Nerve": [0.0] * 12}, {}, ["fold=1", "thresholds.Nerve=0.1"],
        ["'Nerve'", "class_indices"],
    ),
    "threshold for a class not in the data": (
        {}, {}, ["fold=1", "class_indices.Fatt=2", "thresholds.Fatt=0.1"],
        ["'Fatt'", "not in the data", "did you mean 'Fat'?"],
    ),
    "class indices with a hole": ({}, {}, ["fold=1", "class_indices.Fat=5"], ["0 .. K-1"]),
    "threshold above one": ({}, {}, ["fold=1", "thresholds.Fat=1.5"],
                            ["thresholds.Fat is out of bounds", "1.5", "within [0, 1]"]),
    "fold that does not exist": ({}, {}, ["fold=7"], ["Fold 7 does not exist", "0, 1"]),
    "fold not asked for": ({}, {}, [], ["needs a fold", "fold="]),
    "fold neither there nor assignable": (
        {"fold": None}, {}, ["fold=1", "k=8"], ["8 folds cannot be assigned"],
    ),
    "group column not there": (
        {"fold": None}, {}, ["fold=1", "k=2", "kfold_strategy=stratified_group",
                             "kfold_group=patient_id"], ["patient_id"],
    ),
    "promised group not there": (
        {}, {}, ["fold=1", "kfold_strategy=stratified_group", "kfold_group=patient_id"],
        ["no column patient_id", "kfold_group=slide_id"],
    ),
    "groups by a hash": (
        {"fold": None}, {}, ["fold=1", "kfold_strategy=stratified_group", "fold_rule=hash"],
        ["fold_rule=hash takes tiles one by one", "set fold_rule=sklearn"],
    ),
    "hash that leaves a fold without a class": (
        {"fold": None}, {}, ["fold=1", "k=6", "fold_rule=hash"],
        ["folds would have no tile of a class", "fold_rule=sklearn", "allow_empty_class=true"],
    ),
    "group with a null": (
        {"patient_id": ["p", None, *["q"] * 10]}, {},
        ["fold=1", "kfold_strategy=stratified_group", "kfold_group=patient_id"],
        ["without patient_id", "1 of them", "x=1"],
    ),
    "embeddings all empty": (
        {}, {"embedding": pa.array([[]] * 12, pa.list_(pa.float64()))}, ["fold=1"],
        ["No embedding holds a value"],
    ),
    "first embedding empty": (
        {}, {"embedding": with_([[1.0, 2.0, 3.0]] * 12, 0, [])}, ["fold=1"],
        ["not all of one length (3", "length 0", "x=0"],
    ),
    "fold with a null": ({"fold": with_(FOLDS, 3, None)}, {}, ["fold=1"], ["without a fold"]),
    "every tile dropped": (
        {}, {}, ["fold=1", "tissue_prop_min=0.95"],
        ["Every tile is dropped", "input 12", "tissue 12"],
    ),
    "empty join": (
        {}, {"slide_id": ["other"] * 12}, ["fold=1"],
        ["the join is empty", "slide_id='s0'", "slide_id='other'"],
    ),
    "embeddings of another level": (
        {"x": [4 * n for n in KEYS]}, {}, ["fold=1"],
        ["12 of 12 surviving tiles have no embedding of their own", "allow_missing=0.5", "in 's1'",
         "4 times those of the embeddings: so 12 of 12", "not 1 by chance", "pixels of one level"],
    ),
    "names with a suffix": (
        {"slide_id": [f"s{n // 3}" for n in KEYS]},
        {"slide_id": [f"s{n // 3}.svs" for n in KEYS]}, ["fold=1", "allow_missing=1"],
        ["the join is empty", "ends in '.svs' ('s0', 's0.svs'): so 12 of 12", "spell slide_id"],
    ),
    "a slide that was not embedded": (
        {}, {"x": [*KEYS[:9], 90, 91, 92]}, ["fold=1", "allow_missing=0.3"],
        ["1 of 4 slides lack embeddings", "3 of 3 in 's3'", "allow_missing=0.3"],
    ),
    "a share beyond one": ({}, {}, ["fold=1", "allow_missing=1.1"],
                           ["allow_missing is out of bounds", "within [0, 1]"]),
    "embeddings of unequal length": (
        {}, {"embedding": with_(VECTORS, 5, [1.0])}, ["fold=1"],
        ["not all of one length", "1 of 12 rows", "slide_id='s1', x=5"],
    ),
    "NaN in an embedding": (
        {}, {"embedding": with_(VECTORS, 4, [math.nan, 0.0, 0.0])}, ["fold=1"],
        ["NaN", "1 of 12", "slide_id='s1', x=4"],
    ),
    "infinite embedding": (
        {}, {"embedding": with_(VECTORS, 4, [math.inf, 0.0, 0.0])}, ["fold=1"],
        ["infinite", "slide_id='s1', x=4"],
    ),
    "embedding column missing": ({}, {"embedding": None}, ["fold=1"], ["no column embedding"]),
    "duplicate tiles": (
        {"x": with_(KEYS, 1, 0)}, {}, ["fold=1"], ["more than once", "slide_id='s0', x=0"],
    ),
    "duplicate embeddings": (
        {}, {"x": with_(KEYS, 1, 0)}, ["fold=1"], ["mbeddings", "more than once"],
    ),
    "key column missing": ({"y": None}, {}, ["fold=1"], ["key column y"]),
    "key of the wrong type": ({"x": [f"{n}" for n in KEYS]}, {}, ["fold=1"], ["Column x"]),
    "null in a key": ({"slide_id": [None] + ["s"] * 11}, {}, ["fold=1"], ["whole key"]),
    "coverage NaN": (
        {"roi_coverage_Fat": with_(COVERAGE, 2, math.nan)}, {}, ["fold=1"],
        ["roi_coverage_Fat", "NaN", "1 of", "x=2"],
    ),
    "coverage negative": (
        {"roi_coverage_Fat": with_(COVERAGE, 2, -0.1)}, {}, ["fold=1"], ["negative", "x=2"],
    ),
    "coverage above one": (
        {"roi_coverage_Fat": with_(COVERAGE, 2, 1.1)}, {}, ["fold=1"], ["above 1", "x=2"],
    ),
    "coverage that is text": (
        {"roi_coverage_Fat": ["a"] * 12}, {}, ["fold=1"], ["roi_coverage_Fat", "not a number"],
    ),
    "columns that differ in case": (
        {"roi_coverage_fat": COVERAGE}, {}, ["fold=1"], ["differ in case", "roi_coverage_fat"],
    ),
    "leaking group folds": (
        {"fold": [n % 2 for n in range(12)]}, {}, ["fold=1", "kfold_strategy=stratified_group"],
        ["4; the first: slide_id s0", "several folds", "leakage=warn"],
    ),
    "unknown key": ({}, {}, ["flod=4"], ["'flod'", "did you mean 'fold'?"]),
    "value of the wrong type": (
        {}, {}, ["fold=four"], ["fold is not a whole number, all, a list", "found: fold=four"],
    ),
    "argument without =": ({}, {}, ["fold"], ["'fold'", "key=value"]),
    "unknown head": ({}, {}, ["fold=1", "head=liner"], ["'liner'", "did you mean 'linear'?"]),
    "unknown data": ({}, {}, ["fold=1", "data=digit"], ["data=digit", "did you mean 'digits'?"]),
    "checkpoint of nothing": ({}, {}, ["mode=test", "checkpoint=x", "data.test_tiles=y"],
                              ["not a checkpoint", "x"]),
    "test without test tiles": ({}, {}, ["mode=test", "checkpoint=x"],
                                ["data.test_tiles is not set", "`featurestore split`"]),
    "test without a checkpoint": ({}, {}, ["mode=test"], ["needs a checkpoint"]),
    "missing file": ({}, {}, ["fold=1", "data.tiles=nope.parquet"], ["nope.parquet", "in "]),
    "corrupt file": ({}, {}, ["fold=1", "data.tiles=own.yaml"], ["not a whole Parquet"]),
    "unknown scheme": ({}, {}, ["fold=1", "data.tiles=ftp://x/y"], ["ftp", "scheme"]),
    "no tiles at all": ({}, {}, ["fold=1", "data.tiles=null"], ["data.tiles"]),
    "file store": (
        {}, {}, ["fold=1", "tracking.uri=./mlruns"],
        ["MLflow at ./mlruns cannot be used", "maintenance mode", "mlflow migrate-filestore"],
    ),
    "no driver for PostgreSQL": (
        {}, {}, ["fold=1", "tracking.uri=postgresql://me:secret@127.0.0.1/db"],
        ["MLflow needs for postgresql://127.0.0.1/db", "No module named", "pip install 'psycopg"],
    ),
    "no driver for MySQL": (
        {}, {}, ["fold=1", "tracking.uri=mysql://me:secret@127.0.0.1/db"],
        ["MLflow needs for mysql://127.0.0.1/db", "MySQLdb", "pip install 'mysqlclient'"],
    ),
    "unknown tracking URI": (
        {}, {}, ["fold=1", "tracking.uri=oracle://me:secret@h/db"],
        ["oracle://h/db", "unsupported"],
    ),
    "Databricks without credentials": (
        {}, {}, ["fold=1", "tracking.uri=databricks"],
        ["MLflow at databricks cannot be used", "credential", "DATABRICKS_TOKEN"],
    ),
    "a file that is no database": (
        {}, {}, ["fold=1", "tracking.uri=sqlite:///own.yaml"],
        ["own.yaml refuses", "not a database"],
    ),
    "a folder below a file for the database": (
        {}, {}, ["fold=1", "tracking.uri=sqlite:///own.yaml/m.db"], ["own.yaml is a file"],
    ),
    "output below a file": (
        {}, {}, ["fold=1", "output=own.yaml/out"], ["own.yaml/out cannot be written"],
    ),
    "model name with a slash": (
        {}, {}, ["fold=1", "tracking.model=team/probe"], ["'team/probe'", "tracking.model has '/'"],
    ),
    "no name for the model": ({}, {}, ["fold=1", "tracking.model= "], ["1 characters"]),
    "no name for the experiment": ({}, {}, ["fold=1", "tracking.experiment="],
                              ["tracking.experiment has no value"]),
    "server that does not answer": (
        {}, {}, ["fold=1", "tracking.uri=http://127.0.0.1:9"], ["does not answer", "127.0.0.1:9"],
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_one_error_and_nothing_written(
    name: str, artifacts: TABLES, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    tiles, embeddings, more, words = REFUSED[name]
    argv = arguments(artifacts(tiles, embeddings), *more)
    before = sorted(tmp_path.rglob("*"))
    assert probe.main(argv) == 2
    said = capsys.readouterr().err
    assert "secret" not in said
    assert said.startswith("error: ")
    assert "\n  found: " in said
    assert "\n  to do: " in said
    assert "Traceback" not in said
    for word in words:
        assert word in said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_the_same_artifacts_unharmed_are_accepted(artifacts: TABLES, tmp_path: Path):
    """The table above refuses for what it changes, not for what all cases share."""
    argv = arguments(artifacts(), "fold=1", "tracking.enabled=false", "output=out")
    assert probe.main(argv) == 0
    assert (tmp_path / "out" / "predictions.parquet").exists()


@pytest.mark.slow
def test_training_that_diverges_is_an_error_not_a_model(
    artifacts: TABLES, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    wild = ["fold=1", "tracking.enabled=false", "output=out", "optimizer=sgd", "learning_rate=1e38"]
    assert probe.main(arguments(artifacts(), *wild)) == 2
    assert "Training diverged in epoch" in capsys.readouterr().err
    assert not (tmp_path / "out" / "predictions.parquet").exists()


@pytest.mark.slow
def test_a_refused_argument_says_nothing_but_the_error(tmp_path: Path):
    """What it may import is in tests/test_startup.py."""
    done = launch([sys.executable, PROBE, "tracking.model=a/b"], tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert not done.stdout


@pytest.mark.parametrize(
    ("environment", "speaks"),
    [
        ({}, True),
        ({"RANK": "1"}, True),  # left over from an earlier launch
        ({"RANK": "1", "LOCAL_RANK": "1"}, True),
        ({"RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "WORLD_SIZE": "1"}, True),
        ({"RANK": "1", "WORLD_SIZE": "2"}, True),
        ({"RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "WORLD_SIZE": "2"}, False),
        ({"RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "a", "WORLD_SIZE": "2"}, True),
    ],
)
def test_a_rank_left_over_silences_no_error(
    environment: dict[str, str],
    speaks: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """Of several processes the first speaks at once; a process that is the only one always does.

    Another one waits until its launcher would have ended it, and speaks if it is refused alone.
    """
    pauses: list[float] = []
    monkeypatch.setattr(help.time, "sleep", pauses.append)
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match="2"):
        help.check_or_exit(["flod=4"])
    checked = capsys.readouterr().err
    assert "'flod'" in checked
    assert bool(pauses) is not speaks
    assert probe.main(["flod=4"]) == 2
    assert bool(capsys.readouterr().err) == speaks


def test_help_lists_every_key():
    for key in ("fold", "learning_rate", "kfold_strategy", "tracking.model", "data.tiles"):
        assert f"  {key} " in help.usage()
