"""Several encoders over one cohort: the tiles that all have, one encoder's embeddings read."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CLASSES, examples
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.backend import engine
from featurestore.console import cli
from featurestore.console.keys import read_settings
from featurestore.console.settings import configured
from featurestore.embeddings.layout import VALUES
from featurestore.errors import ArtifactError, ConfigError, FeatureStoreError
from featurestore.snapshots.build import materialise
from featurestore.spec.store_spec import StoreSpec
from featurestore.store import FeatureStore
from featurestore.validation import violations
from featurestore.views.joins import common_keys
from train.config.encoders import named
from train.config.load import load, recorded
from train.config.text import text

ROWS = range(12)
KEYS = {"slide_id": [f"s{n // 3}" for n in ROWS], "x": list(ROWS), "y": [0] * 12}
TILES = KEYS | {
    "roi_coverage_Fat": [0.9 if n % 2 else 0.0 for n in ROWS],
    "roi_coverage_Muscle": [0.0 if n % 2 else 0.8 for n in ROWS],
    "fold": [n // 6 for n in ROWS],
}


def written(name: str, rows: set[int], dim: int) -> str:
    """Write the embeddings of some tiles; return the file's name."""
    table = pa.table(KEYS | {"embedding": [[float(n)] * (dim - 1) + [1.0] for n in ROWS]})
    pq.write_table(table.take(pa.array(sorted(rows), pa.int64())), name)
    return name


def uris(rows: dict[str, set[int]]) -> dict[str, str]:
    """Write the embeddings of several encoders, each of another length; return their files."""
    return {
        name: written(f"{name}.parquet", of, dim)
        for dim, (name, of) in enumerate(rows.items(), start=2)
    }


def spec(rows: dict[str, set[int]], encoder: str | None = None) -> StoreSpec:
    pq.write_table(pa.table(TILES), "tiles.parquet")
    return StoreSpec(tiles="tiles.parquet", embeddings=uris(rows), encoder=encoder, **CLASSES)


SLIDE = st.sampled_from(["a", "b"])


@settings(max_examples=examples(20), deadline=None)
@given(st.lists(st.sets(st.tuples(SLIDE, st.integers(0, 2), st.just(0))), min_size=1, max_size=3))
def test_common_keys_are_those_of_plain_sql(sides: list[set[tuple[str, int, int]]]):
    schema = pa.schema({"slide_id": pa.string(), "x": pa.int64(), "y": pa.int64()})
    connection = engine.connect()
    tables = [
        engine.register(
            connection,
            f"t{number}",
            pa.table(list(zip(*side, strict=True)) or [[]] * 3, schema=schema),
        )
        for number, side in enumerate(sides)
    ]
    query = " intersect ".join(f"select * from t{number}" for number in range(len(sides)))
    expected = connection.raw_sql(query).fetchall()
    rows = common_keys(tables, schema.names).to_pyarrow().to_pylist()
    assert sorted(tuple(row.values()) for row in rows) == sorted(expected)


@pytest.mark.slow
def test_a_tile_is_kept_that_all_encoders_have():
    """The same tiles as pandas finds, whichever encoder is read."""
    rows = {"a": set(ROWS) - {0, 7}, "b": set(ROWS) - {3}, "c": set(ROWS)}
    tables = [pd.read_parquet(uri).drop(columns="embedding") for uri in uris(rows).values()]
    expected = sorted(tables[0].merge(tables[1]).merge(tables[2]).x)
    for encoder in (None, "b"):
        store = FeatureStore(spec(rows, encoder))
        kept = store.sql("select x from fates where dropped_by is null order by x").to_pyarrow()
        assert kept["x"].to_pylist() == expected
        assert store.funnel()[-2]["tiles"] == 12 - len(expected) == 3
        number = store.view("embeddings").count().to_pyarrow().as_py()
        assert number == (len(expected) if encoder is None else len(rows[encoder]))


@pytest.mark.slow
def test_snapshots_of_all_encoders_hold_the_same_tiles_and_are_named_by_all_keys():
    rows = {"a": set(ROWS), "b": set(ROWS) - {3}}
    made = {name: materialise(FeatureStore(spec(rows, name))) for name in rows}
    assert made["a"].content == made["b"].content
    assert made["a"].digest != made["b"].digest
    assert [made[name].matrices[""].dim for name in rows] == [2, 3]
    grown = materialise(FeatureStore(spec(rows | {"b": set(ROWS)}, "a")))
    assert grown.digest != made["a"].digest
    assert grown.content != made["a"].content
    alone = materialise(FeatureStore(replace(spec(rows), embeddings="a.parquet")))
    assert alone.content == grown.content  # no other encoder lacks a tile of it


@pytest.mark.slow
def test_an_encoder_among_others_uses_the_parts_that_it_has_made_alone():
    single = replace(spec({"a": set(ROWS), "b": set(ROWS)}), embeddings="a.parquet")
    materialise(FeatureStore(single))
    [part] = Path(".featurestore/parts").glob(f"*{VALUES}")
    before = part.stat().st_mtime_ns
    materialise(FeatureStore(spec({"a": set(ROWS), "b": set(ROWS) - {1}}, "a")))
    assert [part] == list(Path(".featurestore/parts").glob(f"*{VALUES}"))
    assert part.stat().st_mtime_ns == before


def test_a_training_set_is_of_one_encoder():
    with pytest.raises(ArtifactError, match=r"one encoder[\s\S]*a, b[\s\S]*data\.encoder"):
        materialise(FeatureStore(spec({"a": set(ROWS), "b": set(ROWS)})))


def test_what_is_wrong_is_said_of_the_encoder():
    store = FeatureStore(spec({"good": set(ROWS), "poor": set(ROWS)}))
    table = pa.table(KEYS | {"embedding": [[1.0, float("nan"), 0.0]] + [[0.0, 0.0, 1.0]] * 11})
    pq.write_table(pa.concat_tables([table, table.slice(11)]), "poor.parquet")
    rows = [row for row in violations(store).to_pylist() if row["severity"] == "error"]
    assert {row["artifact"] for row in rows} == {"embeddings/poor"}
    assert "embeddings of poor" in rows[0]["wrong"]


def test_what_an_encoder_lacks_is_said_of_it():
    store = FeatureStore(spec({"a": set(ROWS) - {0, 5}, "b": set(ROWS)}))
    rows = violations(store).to_pylist()
    assert [(row["wrong"], row["rows"]) for row in rows] == [("tiles without an embedding of a", 2)]


@pytest.mark.slow
def test_the_commands_take_several_encoders(capsys: pytest.CaptureFixture[str]):
    encoders = spec({"a": set(ROWS) - {0, 5}, "b": set(ROWS) - {1}}).embeddings
    Path("none.yaml").write_text("{}")
    classes = [f"{key}.{name}={value}" for key, of in CLASSES.items() for name, value in of.items()]
    named = ", ".join(f"{name}: {uri}" for name, uri in encoders.items())
    config = load(["data=none.yaml", "classes=none.yaml", "data.name=n", "fold=1", *classes,
                   "allow_missing=1",
                   "data.tiles=tiles.parquet", f"data.embeddings={{{named}}}"])  # fmt: skip
    Path("store.yaml").write_text(text(config))
    asked = ["--config", "store.yaml"]
    lacking = "select count(*) as n from fates where dropped_by = 'no_embedding'"
    assert cli.main([*asked, "sql", lacking, "--format", "csv"]) == 0
    assert capsys.readouterr().out.split() == ['"n"', "3"]
    assert cli.main([*asked, "describe"]) == 0
    assert "embeddings/b" in capsys.readouterr().out
    assert cli.main([*asked, "check"]) == 0
    assert capsys.readouterr().out.endswith("0 errors, 2 warnings\n")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"embeddings": {}}, "names no encoder"),
        ({"embeddings": {"a": "x", "b": "x"}}, "a and b are the same embeddings"),
        ({"embeddings": {"a/b": "x"}}, "'a/b' cannot be the name of an encoder"),
        ({"embeddings": {"..": "x"}}, "cannot be the name of an encoder"),
        ({"embeddings": {"a": ""}}, r"embeddings\.a has no value"),
        ({"embeddings": {"virchow2": "x"}, "encoder": "virchow"}, "did you mean 'virchow2'"),
        ({"embeddings": "x", "encoder": "a"}, "There is no encoder 'a'"),
        ({"embeddings": {"a": "x"}, "test_embeddings": "y"}, "not of the same encoders"),
        ({"embeddings": {"a": "x"}, "test_embeddings": {"b": "y"}}, "not of the same encoders"),
    ],
)
def test_encoders_that_are_not_told_apart_are_refused(values: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        StoreSpec(**values)


def doubled(name: str) -> None:
    table = pq.read_table(name)
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), name)


@pytest.mark.parametrize(
    ("harm", "title", "words"),
    [
        (lambda: doubled("b.parquet"), "Encoder b: ", "more than once"),
        (lambda: Path("b.parquet").unlink(), "Encoder b: ", "(data.embeddings.b=b.parquet)"),
        (lambda: Path("b.parquet").write_bytes(b"PAR1"), "Encoder b: ", "not a whole Parquet file"),
        (lambda: Path("a.parquet").unlink(), "Encoder a: ", "(data.embeddings.a=a.parquet)"),
        (lambda: doubled("tiles.parquet"), "Tiles ", "more than once"),
    ],
)
def test_what_is_wrong_with_an_encoder_bears_its_name_whichever_is_opened(
    harm: Callable[[], None], title: str, words: str
):
    """And what is wrong with tiles that of none."""
    opened = spec({"a": set(ROWS), "b": set(ROWS)}, "a")
    harm()
    with pytest.raises(FeatureStoreError) as refusal, named("a"):
        FeatureStore(opened).survivors("")
    assert refusal.value.wrong.startswith(title)
    assert words in str(refusal.value)


def test_other_encoders_take_the_place_of_those_of_a_file(capsys: pytest.CaptureFixture[str]):
    """Thresholds of a file and of arguments are joined; encoders are one value."""
    Path("data.yaml").write_text(
        "data: {name: own, tiles: t, embeddings: {a: a.parquet, b: b.parquet}}\n"
        "class_indices: {Fat: 0, Muscle: 1}\nthresholds: {Fat: 0.5, Muscle: 0.5}\n"
    )
    argv = ["data=data.yaml", "data.embeddings={c: c.parquet}", "thresholds={Fat: 0.1}"]
    config = load([*argv, "fold=1"])
    assert (config.data.embeddings, config.thresholds["Muscle"]) == ({"c": "c.parquet"}, 0.5)
    again = recorded(text(config), ["data.embeddings={d: d.parquet}"])
    assert again.data.embeddings == {"d": "d.parquet"}
    options = argparse.Namespace(config=None)
    read_settings(options, argv)
    store = configured(options)
    assert (store.embeddings, store.thresholds) == ({"c": "c.parquet"}, {"Fat": 0.1, "Muscle": 0.5})
