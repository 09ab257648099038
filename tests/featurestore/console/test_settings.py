"""``key=value`` arguments of `featurestore`: those of the scripts, wherever they stand."""

import argparse
from pathlib import Path

import pytest
from conftest import TABLES

from featurestore.console import cli, settings
from featurestore.errors import ConfigError
from featurestore.spec.store_spec import StoreSpec
from train.config.load import load

OWN = """
data: {name: mine, root: .., tiles: a/t.parquet, embeddings: 's3://b/e', slides: /abs/s.parquet}
class_indices: {Fat: 0, Müs-kel: 1}
thresholds: {Fat: 0.5, Müs-kel: 0.5}
learning_rate: 0.1
"""
RULES = [
    "thresholds.Müs-kel=0.25",
    "tissue_prop_min=0.3",
    "where=organ = 'a=b # c'",
    "k=3",
    "data.test_tiles=t #1=2.parquet",
    "data.columns.x=left",
    "merge.Fat=[A, 'B, C']",
]


def asked(*argv: str) -> StoreSpec:
    return settings.configured(cli.arguments(argv))


def test_the_same_arguments_mean_the_same_to_featurestore_and_to_the_scripts(tmp_path: Path):
    """A file and what goes before it: every value of the store's is that of the scripts."""
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "own.yaml").write_text(OWN)
    own = "data=cohort/own.yaml"
    spec = asked("check", own, *RULES, "fold_rule=hash")
    scripts = load([own, *RULES, "fold_rule=hash", "fold=0"])
    assert StoreSpec.from_config(settings_of(scripts)) == spec
    assert spec.tiles == str(tmp_path / "a/t.parquet")
    assert (spec.embeddings, spec.slides) == ("s3://b/e", "/abs/s.parquet")
    assert spec.test_tiles == "t #1=2.parquet"  # of an argument: from the working folder
    assert spec.thresholds == {"Fat": 0.5, "Müs-kel": 0.25}
    assert spec.merge == {"Fat": ["A", "B, C"]}
    assert asked("--config", "cohort/own.yaml", "check", *RULES, "fold_rule=hash") == spec


def settings_of(config: object) -> dict:
    """Return the configuration of a script without the columns that nobody has named."""
    from train.config.text import plain

    tree = plain(config)
    columns = {name: column for name, column in tree["data"]["columns"].items() if column}
    return tree | {"data": tree["data"] | {"columns": columns}}


def test_an_argument_in_another_spelling_of_a_class_goes_before_the_file(tmp_path: Path):
    (tmp_path / "own.yaml").write_text("thresholds: {\u00e9: 0.5}")
    assert asked("check", "data=own.yaml", "thresholds.e\u0301=0.25").thresholds == {"\u00e9": 0.25}


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["sql", "k=3", "select 1", "--format", "csv"], {"query": "select 1", "file": None}),
        (["sql", "--format", "csv", "select a=1 from b", "k=3"], {"query": "select a=1 from b"}),
        (["sql", "-f", "a=b.sql", "k=3"], {"query": None, "file": Path("a=b.sql")}),
        (["sql", "k=3", "-f", "a.sql"], {"query": None, "file": Path("a.sql")}),
        (["shell", "k=3"], {"path": None}),
        (["snapshots", "k=3", "--tag", "a=b", "0f3a"], {"snapshot": "0f3a", "tag": "a=b"}),
        (["catalog", "v.duckdb", "k=3"], {"path": Path("v.duckdb")}),
        (["check", "k=3", "--quick"], {"quick": True}),
        (["init", "a", "k=3", "--yes", "./b=c"], {"places": ["a", "./b=c"], "yes": True}),
        (["check", "k=3", "threads=2", "memory_limit=1GB", "tracking.uri=u", "store=s"],
         {"threads": 2, "memory_limit": "1GB", "tracking_uri": "u", "store": "s"}),
    ],
)  # fmt: skip
def test_a_key_may_stand_anywhere_after_the_command(argv: list[str], expected: dict[str, object]):
    options = cli.arguments(argv)
    assert options.values == {"k": 3}
    assert {name: getattr(options, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["tissue_prop_mim=0.3"], ["did you mean 'tissue_prop_min'?"]),
        (["data.tile=a"], ["did you mean 'data.tiles'?"]),
        (["data.columns.embeding=a"], ["did you mean 'embedding'?"]),
        (["thresholds.Fat=2"], ["thresholds.Fat is out of bounds", "[0, 1]"]),
        (["k=x"], ["k is not a whole number"]),
        (["k=3", "k=4"], ["k is given twice"]),
        (["data=a.yaml", "data=b.yaml"], ["data is given twice"]),
        (["data.tiles=${HOME}/t.parquet"], ["given as a template"]),
        (["learning_rate=0.1"], ["learning_rate says how heads are trained", "leave it out"]),
        (["sweep.thresholds.Fat=[0.1]"], ["sweep.thresholds.Fat says how heads are trained"]),
        (["data.synthetic.rows=3"], ["data.synthetic.rows says"]),
        (["data=nope.yaml"], ["nope.yaml cannot be read", "featurestore init"]),
        (["data=virchow2"], ["no data=virchow2", "configs/data/virchow2.yaml"]),
        (["classes=tissue"], ["no classes=tissue", "configs/classes/tissue.yaml"]),
        (["data=files", "data.tiles=t"],
         ["data.embeddings, class_indices and thresholds are not set", "class_indices={Fat: 0"]),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_before_work(
    argv: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
):
    assert cli.main(["funnel", *argv]) == 2
    said = capsys.readouterr().err
    assert not [word for word in words if word not in said], said
    assert not list(Path().iterdir())


def test_data_is_not_named_twice():
    with pytest.raises(ConfigError, match="data is given twice"):
        cli.arguments(["--config", "a.yaml", "check", "data=b.yaml"])


def test_a_file_of_keys_without_its_key_is_asked_after(capsys: pytest.CaptureFixture[str]):
    """By the command and by the scripts; a word beside which no such file lies is not."""
    Path("own.yaml").write_text(OWN)
    with pytest.raises(SystemExit):
        cli.arguments(["check", "own.yaml"])
    assert "arguments: own.yaml; did you mean data=own.yaml?" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"did you mean data=own\.yaml\?"):
        load(["own.yaml", "fold=0"])
    for read in (lambda argv: load([*argv, "fold=0"]), lambda argv: asked("check", *argv)):
        with pytest.raises(ConfigError, match=r"did you mean data=own\.yaml\?"):
            read(["data=own"])
        with pytest.raises(ConfigError) as refusal:
            read(["data=other"])
        assert "other.yaml?" not in refusal.value.found


def test_who_names_no_data_beside_a_file_of_it_is_told(capsys: pytest.CaptureFixture[str]):
    asked("check")
    Path("data.yaml").write_text(OWN)
    asked("check", "data=digits")
    asked("check", "data=data.yaml")
    assert capsys.readouterr().err == ""
    asked("check")
    line = "data: the embedded digits; data.yaml here is not read, name it: data=data.yaml"
    assert capsys.readouterr().err == f"{line} (or data=digits)\n"


@pytest.mark.parametrize("argv", [["check", "word"], ["check", "--fast"], ["cover", "k=3"]])
def test_words_that_no_command_takes_are_not_understood(argv: list[str]):
    with pytest.raises(SystemExit) as ended:
        cli.arguments(argv)
    assert ended.value.code == 2


def test_who_asks_nothing_is_told_the_commands(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.arguments([])
    assert ended.value.code == 2
    assert "name a command: init, sql, funnel, " in capsys.readouterr().err


def test_own_artifacts_are_not_mixed_with_the_digits(artifacts: TABLES):
    """Who names an artifact gets no embedding or class of another cohort."""
    spec = asked("funnel", *(f"{key}={uri}" for key, uri in artifacts().items()))
    assert (spec.slides, spec.class_indices) == (None, None)


def test_help_lists_every_key_about_data(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        cli.arguments(["--help"])
    said = capsys.readouterr().out
    for key in ("data.tiles", "thresholds", "tissue_prop_min", "where", "kfold_strategy"):
        assert f"\n  {key} " in said
    assert isinstance(cli.arguments(["views"]), argparse.Namespace)
