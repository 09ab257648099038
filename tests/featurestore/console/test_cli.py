"""`featurestore` on the embedded digits: each question of sql/, formats, refusals."""

import csv
import io
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, TABLES

from featurestore.console import cli
from featurestore.console.tables import print_matches
from featurestore.examples import digits_spec
from featurestore.printing import Console
from featurestore.store import FeatureStore

QUESTIONS = sorted((ROOT / "sql").glob("*.sql"))


@pytest.fixture(scope="module", autouse=True)
def tracking(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


def ask(capsys: pytest.CaptureFixture[str], tracking: str, *argv: str) -> str:
    """Run a command that must succeed; return what it printed."""
    assert cli.main(["--tracking-uri", tracking, *argv]) == 0
    return capsys.readouterr().out


def rows(capsys: pytest.CaptureFixture[str], tracking: str, *argv: str) -> list[dict]:
    return json.loads(ask(capsys, tracking, "sql", *argv, "--format", "json"))


@pytest.mark.slow
@pytest.mark.parametrize("file", QUESTIONS, ids=lambda p: p.stem)
def test_each_question_is_documented_and_runs(
    file: Path, capsys: pytest.CaptureFixture[str], tracking: str
):
    text = file.read_text()
    assert text.startswith("-- ")
    assert "\n-- Grain: " in text
    assert text.rstrip().splitlines()[-1].startswith("select * from ")
    said = ask(capsys, tracking, "sql", "-f", str(file))
    # The digits have no patients, whole coverages, and an embedding for every tile.
    answerless = {
        "duplicates_across_slides", "near_threshold", "patient_overlap", "tiles_without_embedding",
    }  # fmt: skip
    assert ("no rows" in said) == (file.stem in answerless)


@pytest.mark.slow
def test_fold_balance_counts_every_kept_tile(capsys: pytest.CaptureFixture[str], tracking: str):
    balance = rows(capsys, tracking, "-f", str(ROOT / "sql" / "fold_balance.sql"))
    assert sum(row["tiles"] for row in balance) == 1430
    assert {row["fold"] for row in balance} == {0, 1, 2, 3, 4}
    assert all(19 <= row["percent_of_label"] <= 21 for row in balance)


@pytest.mark.slow
def test_label_distribution(capsys: pytest.CaptureFixture[str], tracking: str):
    labels = rows(capsys, tracking, "-f", str(ROOT / "sql" / "label_distribution.sql"))
    assert sum(row["tiles"] for row in labels) == 1430
    assert sorted(row["label"] for row in labels) == [str(d) for d in range(10)]


@pytest.mark.slow
def test_every_slide_leaks_under_stratified(capsys: pytest.CaptureFixture[str], tracking: str):
    leaks = rows(capsys, tracking, "-f", str(ROOT / "sql" / "slide_leakage.sql"))
    assert len(leaks) == 11


@pytest.mark.slow
def test_threshold_sweep_falls_from_all_to_none(capsys: pytest.CaptureFixture[str], tracking: str):
    sweep = rows(capsys, tracking, "-f", str(ROOT / "sql" / "threshold_sweep.sql"))
    ones = [row["tiles"] for row in sweep if row["class"] == "1"]
    assert ones[0] == 145
    assert ones == sorted(ones, reverse=True)
    assert ones[-1] == 0


@pytest.mark.slow
def test_formats_hold_the_same_rows(
    capsys: pytest.CaptureFixture[str], tracking: str, tmp_path: Path
):
    query = "select label, count(*) as n from fates group by label order by label"
    expected = rows(capsys, tracking, query)
    text = ask(capsys, tracking, "sql", query, "--format", "csv")
    assert [{"label": r["label"], "n": int(r["n"])} for r in csv.DictReader(io.StringIO(text))] \
        == expected  # fmt: skip
    out = tmp_path / "o.parquet"
    ask(capsys, tracking, "sql", query, "--format", "parquet", "-o", str(out))
    assert pq.read_table(out).to_pylist() == expected
    assert sorted(tmp_path.iterdir()) == [tmp_path / ".featurestore", out]


@pytest.mark.slow
def test_funnel_prints_both_cohorts(capsys: pytest.CaptureFixture[str], tracking: str):
    said = ask(capsys, tracking, "funnel")
    for word in ("background", "no_embedding", "1,430", "test tiles", "367"):
        assert word in said


def test_describe_names_the_type_of_embeddings_as_their_files_do(
    artifacts: TABLES, capsys: pytest.CaptureFixture[str], tracking: str
):
    """Of half floats, which DuckDB reads as floats."""
    halves = pa.array([[float(n), 1.0] for n in range(12)], pa.list_(pa.float16(), 2))
    places = [f"{key}={uri}" for key, uri in artifacts(embeddings={"embedding": halves}).items()]
    classes = ["class_indices={Fat: 0, Muscle: 1}", "thresholds={Fat: 0.5, Muscle: 0.5}"]
    assert "2 float16" in ask(capsys, tracking, "describe", *places, *classes)


def test_views_are_listed_with_their_columns(capsys: pytest.CaptureFixture[str], tracking: str):
    said = ask(capsys, tracking, "views")
    for name in ("fates", "test_fates", "funnel", "coverages", "classes", "slides", "dropped_by"):
        assert name in said


@pytest.mark.slow
def test_configuration_of_a_run_can_be_asked(
    capsys: pytest.CaptureFixture[str], tracking: str, tmp_path: Path
):
    from featurestore.io.mlflow_artifacts import use_tracking
    from train.config import load
    from train.config import text as config_text

    use_tracking(tracking)
    settled = load.load(["fold=0", "tissue_prop_min=0.3"])
    spec = digits_spec()
    settled.data.tiles, settled.data.embeddings = spec.tiles, spec.embeddings
    (tmp_path / "store.yaml").write_text(config_text.text(settled))
    kept = json.loads(
        ask(capsys, tracking, "--config", "store.yaml", "sql",
            "select tiles from funnel where reason = 'tissue'", "--format", "json")
    )  # fmt: skip
    assert 0 < kept[0]["tiles"] < 1430


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["sql", "select nope from fates"], ["nope", "featurestore views"]),
        (["sql", "select 1; drop view fates"], ["Only what reads", "DROP"]),
        (["sql", "copy fates to 'x.csv'"], ["Only what reads", "COPY"]),
        (["sql", "selekt 1"], ["syntax error"]),
        (["sql", ""], ["Nothing is asked"]),
        (["sql", "select 1; select 2", "--format", "csv"], ["Several answers", "2 statements"]),
        (["sql", "from predictions"], ["none of the views", "runs=RUN"]),
        (["sql", "from errors", "runs=nope.parquet"], ["nope.parquet"]),
        (["sql", "-f", "nope.sql"], ["nope.sql cannot be read"]),
        (["--config", "nope.yaml", "funnel"], ["nope.yaml cannot be read", "featurestore init"]),
        (["--config", "", "funnel"], ["'' cannot be read"]),
        (["--config", "\0", "funnel"], ["cannot be read", "null byte"]),
    ],
)
def test_refusals(
    argv: list[str], words: list[str], capsys: pytest.CaptureFixture[str], tracking: str,
    tmp_path: Path,
):  # fmt: skip
    assert cli.main(["--tracking-uri", tracking, *argv]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "to do: " in said
    for word in words:
        assert word in said
    kept = [path.name for path in tmp_path.glob(".featurestore/*")]
    assert kept in ([], ["digits"])  # who names no artifacts asks these, which are made once
    assert {path.name for path in tmp_path.iterdir()} <= {".featurestore"}


@pytest.mark.slow
def test_sql_from_python_is_lazy(tracking: str):
    from featurestore.io.mlflow_artifacts import use_tracking

    use_tracking(tracking)
    answer = FeatureStore(digits_spec()).sql("select slide_id, count(*) as n from fates group by 1")
    assert answer.columns == ("slide_id", "n")
    assert answer.n.sum().to_pyarrow().as_py() == 1430


STORE = """
class_indices: {Fat: 0, Muscle: 1}
thresholds: {Fat: 0.5, Muscle: 0.5}
data: {tiles: in/tiles.parquet, embeddings: in/embeddings.parquet}
"""


@pytest.fixture
def small(artifacts: TABLES, tmp_path: Path) -> Path:
    """Return the folder of small artifacts, which store.yaml names."""
    artifacts()
    (tmp_path / "store.yaml").write_text(STORE)
    return tmp_path / "in"


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that must be refused; return the error."""
    assert cli.main(list(argv)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("to do: ") == 1
    return said


@pytest.mark.parametrize("place", ["in/tiles.parquet", "in/../in/embeddings.parquet"])
def test_an_answer_is_never_written_over_an_artifact(
    place: str, small: Path, capsys: pytest.CaptureFixture[str]
):
    before = [file.read_bytes() for file in sorted(small.iterdir())]
    argv = ("--config", "store.yaml", "sql", "select 1 as a", "-o", place, "--format", "parquet")
    assert "is a place of the artifacts" in refused(capsys, *argv)
    assert [file.read_bytes() for file in sorted(small.iterdir())] == before


def test_an_answer_does_not_become_part_of_an_artifact(
    small: Path, capsys: pytest.CaptureFixture[str]
):
    (small / "tiles").mkdir()
    (small / "tiles.parquet").rename(small / "tiles" / "0.parquet")
    Path("store.yaml").write_text(STORE.replace("tiles.parquet", "tiles"))
    argv = ("--config", "store.yaml", "sql", "select 1 as a", "--format", "parquet", "-o")
    assert "which would be part" in refused(capsys, *argv, "in/tiles/a.parquet")
    assert cli.main([*argv, "in/tiles.answer"]) == 0


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        (None, "there is no database at sqlite:///{folder}/mlflow.db"),
        ("sqlite:///not/there/x.db", "there is no database at sqlite:///{folder}/not/there/x.db"),
        ("foo://x", "unsupported URI 'foo://x'"),
        ("mysql://127.0.0.1/x", "pip install 'mysqlclient'"),
        ("file:///not/there", "MLflow has no artifact runs:/abc/store.yaml"),
    ],
)
def test_a_question_to_no_mlflow_is_refused_and_makes_none(
    uri: str | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    if uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    message = refused(capsys, "--config", "runs:/abc/store.yaml", "funnel")
    assert words.format(folder=tmp_path) in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("query", "form", "words"),
    [
        ("select 1 as a, 2 as a", "json", ["bear one name", "'a'"]),
        ("select 1 as a, 2 as a", "table", ["bear one name"]),
        ("select embedding from embeddings", "csv", ["cannot be given as csv", "::text"]),
        ("select {'a': 1} as d", "csv", ["cannot be given as csv"]),
        ("select '\\xff'::blob as d", "csv", ["cannot be given as csv"]),
        ("select interval 1 day as d", "parquet", ["cannot be given as parquet"]),
        ("select '1'::bit as d", "table", ["strings of bits", "'d'"]),
        ("select '01010101'::bit as d", "json", ["strings of bits"]),
        ("select 1::union(num int, str text) as d", "json", ["cannot be given as json"]),
        ("select date 'infinity' as d", "json", ["cannot be given as json"]),
        ("select timestamp 'infinity' as d", "table", ["cannot be given as table"]),
    ],
)
def test_an_answer_without_a_place_in_its_format_is_refused(
    query: str, form: str, words: list[str], small: Path, capsys: pytest.CaptureFixture[str]
):
    more = ["-o", "o.parquet"] if form == "parquet" else []
    said = refused(capsys, "--config", "store.yaml", "sql", query, "--format", form, *more)
    assert all(word in said for word in words), said
    assert not Path("o.parquet").exists()


def test_answers_are_printed_one_below_the_other(small: Path, capsys: pytest.CaptureFixture[str]):
    """A plan as it was drawn, numbers that SUMMARIZE writes out as numbers."""
    text = "select 41 + 1 as m; summarize classes; explain select 1 as b"
    assert cli.main(["--config", "store.yaml", "sql", text]) == 0
    out = capsys.readouterr().out
    assert "42" in out
    assert "0.70710" not in out
    assert "PROJECTION" in out


def test_numbers_keep_their_digits_in_json(small: Path, capsys: pytest.CaptureFixture[str]):
    """What a double holds is a number, what it does not is text; no reader meets a bare NaN."""
    query = """select 1.10::decimal(5,2) as price, 7::decimal(5,2) as seven,
        '9007199254740993.5'::decimal(38,1) as long, 'nan'::double as none,
        ['inf'::double, 0.5] as list, '\\x01\\xff'::blob as bytes"""
    assert cli.main(["--config", "store.yaml", "sql", query, "--format", "json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out, parse_constant=pytest.fail) == [
        {"price": 1.1, "seven": 7, "long": "9007199254740993.5", "none": None,
         "list": [None, 0.5], "bytes": "01ff"}
    ]  # fmt: skip


def test_a_query_is_read_as_utf_8(small: Path, capsys: pytest.CaptureFixture[str]):
    Path("latin.sql").write_bytes("select 'é' as a".encode("latin-1"))
    assert "latin.sql cannot be read" in refused(
        capsys, "--config", "store.yaml", "sql", "-f", "latin.sql"
    )


@pytest.mark.slow
@pytest.mark.parametrize("command", [["materialise"], ["export", "--to", "out"]])
def test_equal_embeddings_across_the_folds_are_refused_and_nothing_is_left(
    command: list[str], artifacts: TABLES, capsys: pytest.CaptureFixture[str], tracking: str
):
    """As in a run; `leakage: warn` lets it pass and says so, as `kfold_strategy: stratified`."""
    vectors = [[float(n), 1.0, 2.0] for n in range(12)]
    vectors[11] = vectors[3]
    named = artifacts(None, {"embedding": vectors})
    rules = {"class_indices": {"Fat": 0, "Muscle": 1}, "thresholds": {"Fat": 0.5, "Muscle": 0.5},
             "data": {key.removeprefix("data."): uri for key, uri in named.items()},
             "kfold_strategy": "stratified_group"}  # fmt: skip
    Path("config.yaml").write_text(json.dumps(rules))
    asked = ["--config", "config.yaml", "--tracking-uri", tracking, *command]
    assert cli.main(asked) == 2
    assert "There are tiles with the embedding of a tile in another fold" in capsys.readouterr().err
    assert sorted(file.name for file in Path().iterdir()) == ["config.yaml", "in"]
    Path("config.yaml").write_text(json.dumps(rules | {"leakage": "warn"}))
    assert cli.main(asked) == 0
    out = capsys.readouterr()
    assert "leak: 2 tiles with the embedding" in out.out + out.err


@pytest.mark.slow
def test_tiles_of_another_level_are_told_slide_by_slide(
    artifacts: TABLES, capsys: pytest.CaptureFixture[str], tracking: str
):
    """The check ends as training does, and says where; what is let pass is shown all the same."""
    named = artifacts({"x": [4 * n for n in range(12)]})
    rules = {"class_indices": {"Fat": 0, "Muscle": 1}, "thresholds": {"Fat": 0.5, "Muscle": 0.5},
             "data": {key.removeprefix("data."): uri for key, uri in named.items()}}  # fmt: skip
    Path("config.yaml").write_text(json.dumps(rules))
    asked = ["--config", "config.yaml", "--tracking-uri", tracking]
    assert cli.main([*asked, "check"]) == 2
    out = " ".join(capsys.readouterr().out.split())
    assert "surviving tiles by slide" in out
    assert re.search(r"s0 . 3 . 3 .+s1 . 3 . 3 .+s2 . 3 . 3 .+s3 . 3 . 3 ", out)
    assert "1 error, 2 warnings" in out
    assert cli.main([*asked, "materialise"]) == 2
    assert "x and y of the tiles are 4 times those of the embeddings" in capsys.readouterr().err
    assert sorted(file.name for file in Path().iterdir()) == ["config.yaml", "in"]
    Path("config.yaml").write_text(json.dumps(rules | {"allow_missing": 1.0}))
    assert cli.main([*asked, "check"]) == 0
    assert "surviving tiles by slide" in capsys.readouterr().out


def test_ten_slides_without_embeddings_are_shown_and_the_others_counted(
    capsys: pytest.CaptureFixture[str],
):
    rows = [{"slide_id": f"s{n:02}", "tiles": 9, "missing": 13 - n} for n in range(14)]
    print_matches(pa.Table.from_pylist(rows), Console(), "tiles by slide")
    out = capsys.readouterr().out
    assert [f"s{n:02}" in out for n in range(14)] == [True] * 10 + [False] * 4
    assert "... and 3 more slides" in out
