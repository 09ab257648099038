"""`featurestore split` from tiles to files: counts against pandas, growth, refusals."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CLASSES

from featurestore import FeatureStore, StoreSpec
from featurestore.console import cli
from featurestore.errors import (
    ArtifactError,
    EmptyViewError,
    FeatureStoreError,
    FeatureStoreWarning,
    SchemaError,
    SplitError,
)
from featurestore.io import cache
from featurestore.io.progress import Rows
from featurestore.snapshots.build import materialise
from featurestore.spec.split_rules import SplitRules
from featurestore.splits import kept
from featurestore.splits.folder import FILES
from featurestore.splits.split import Request, Split, split

pytestmark = pytest.mark.filterwarnings("ignore:the test part has", "ignore:.* strata are on one")
KEY = ["slide_id", "x", "y"]
RULES = SplitRules(0.25, "patient_id", ("organ", "label"))


def cohort(slides: range, patients: dict[int, str] | None = None, **changed: Any) -> pd.DataFrame:
    """Return tiles of slides, two a patient, of two organs and unlike mixes; some are dropped."""
    rows = [
        {
            "slide_id": f"s{slide:02d}", "x": x, "y": 0,
            "patient_id": (patients or {}).get(slide, f"p{slide // 2:02d}"),
            "organ": "colon" if slide % 4 < 2 else "breast",
            "roi_coverage_Fat": 0.9 if (x + slide) % 3 == 0 else 0.0,
            "roi_coverage_Muscle": (0.1 if x == 5 else 0.7) if (x + slide) % 3 else 0.0,
            "note": f"{slide}/{x}",
        }
        for slide in slides for x in range(6 + slide % 3)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**changed)


def store(tiles: pd.DataFrame, name: str = "tiles", **spec: Any) -> FeatureStore:
    pq.write_table(pa.Table.from_pandas(tiles, preserve_index=False), f"{name}.parquet")
    return FeatureStore(StoreSpec(tiles=f"{name}.parquet", **{**CLASSES, **spec}))


def divide(
    tiles: FeatureStore, rules: SplitRules = RULES, to: str = "out", **asked: Any
) -> tuple[Split, dict[str, str]]:
    """Split, unlogged; return what was made, and the side of each group."""
    made = split(tiles, rules, Request(Path(to), **{"log": False, **asked}), Rows(None))
    table = pq.read_table(f"{to}/split.parquet")
    sides = zip(table[rules.group].to_pylist(), table["split"].to_pylist(), strict=True)
    return made, {str(group): side for group, side in sides}


def parts(to: str = "out") -> tuple[pd.DataFrame, pd.DataFrame]:
    names = ("kfold_tiles.parquet", "test_tiles.parquet")
    return tuple(pq.read_table(f"{to}/{name}").to_pandas() for name in names)


def lineage(made: Split) -> tuple[str, int, int, int]:
    return made.origin.why, made.origin.known, made.origin.new, made.origin.gone


def test_both_parts_are_the_tiles_with_all_their_columns_and_no_group_is_divided():
    tiles = cohort(range(24))
    _, sides = divide(store(tiles))
    train, test = parts()
    assert list(train.columns) == list(test.columns) == list(tiles.columns)
    both = pd.concat([train, test]).sort_values(KEY).reset_index(drop=True)
    pd.testing.assert_frame_equal(both, tiles.sort_values(KEY).reset_index(drop=True))
    assert set(train["patient_id"]) == {group for group, side in sides.items() if side == "train"}
    assert set(test["patient_id"]) == {group for group, side in sides.items() if side == "test"}
    table = pq.read_table("out/split.parquet")
    assert table.column_names == ["patient_id", "split", "slides", "gone"]
    assert len(table) == 12
    assert table["slides"].to_pylist()[0] == ["s00", "s01"]


def test_the_balance_is_what_pandas_counts():
    tiles = cohort(range(24))
    made, sides = divide(store(tiles))
    shares = tiles[["roi_coverage_Fat", "roi_coverage_Muscle"]]
    kept_tiles = tiles.assign(label=shares.idxmax(axis=1).str[len("roi_coverage_") :])
    kept_tiles = kept_tiles[shares.max(axis=1) >= 0.5]
    kept_tiles = kept_tiles.assign(side=kept_tiles["patient_id"].map(sides))
    by_stratum = kept_tiles.groupby(["organ", "label"])
    for row, ((organ, label), rows) in zip(made.balance[1:], by_stratum, strict=True):
        train, test = (rows[rows["side"] == side] for side in ("train", "test"))
        assert row == {
            "stratum": f"{organ}, {label}", "train": len(train), "test": len(test),
            "share": len(test) / len(rows), "train_groups": train["patient_id"].nunique(),
            "test_groups": test["patient_id"].nunique(),
        }  # fmt: skip
    assert made.balance[0]["train"] + made.balance[0]["test"] == len(kept_tiles)
    assert abs(made.balance[0]["share"] - 0.25) < 0.05
    manifest = json.loads(Path("out/manifest.json").read_text())
    assert manifest["balance"] == made.balance
    assert sum(manifest["dropped"].values()) == len(tiles) - len(kept_tiles)


def test_kept_tiles_without_an_embedding_are_told_and_divide_alike(
    capsys: pytest.CaptureFixture[str],
):
    """The split is that of the label rules: it stays as it is when tiles are embedded."""
    tiles = cohort(range(24))
    keys = tiles[KEY][tiles.x > 0].assign(embedding=[[0.0, 1.0]] * int((tiles.x > 0).sum()))
    pq.write_table(pa.Table.from_pandas(keys, preserve_index=False), "vectors.parquet")
    made, sides = divide(store(tiles, embeddings="vectors.parquet"))
    kept_tiles = tiles[(tiles.roi_coverage_Fat >= 0.5) | (tiles.roi_coverage_Muscle >= 0.5)]
    missing = kept_tiles[kept_tiles.x == 0].patient_id.map(sides).value_counts()
    assert made.unembedded == {side: missing[side] for side in ("train", "test")}
    assert (made.is_kept, divide(store(tiles), to="other")[1]) == (False, sides)
    Path("data.yaml").write_text(
        "data: {tiles: tiles.parquet, embeddings: vectors.parquet}\n"
        "class_indices: {Fat: 0, Muscle: 1}\nthresholds: {Fat: 0.5, Muscle: 0.5}\n"
    )
    argv = ["split", "data=data.yaml", "--test", "0.25", "--group", "patient_id", "--no-log",
            "--stratify", "organ,label", "--to", "out"]  # fmt: skip
    assert cli.main(argv) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "tiles that the label rules keep, by organ, label" in said
    assert f"where they are used: {missing['train']} of train, {missing['test']} of test" in said
    assert "split: as before (first, " in said  # nothing is dealt anew
    assert "12 new, 0 gone then)" in said


@pytest.mark.slow
def test_a_cohort_that_grows_moves_nobody_and_who_left_is_remembered():
    first, before = divide(store(cohort(range(16))), to="a")
    grown, after = divide(store(cohort(range(4, 24)), "more"), to="b")
    assert lineage(first) == ("first", 0, 8, 0)
    assert lineage(grown) == ("extends", 6, 4, 2)
    assert before.items() <= after.items()
    assert grown.origin.extends == first.origin.digest
    again, whole = divide(store(cohort(range(24)), "all"), to="c")
    assert lineage(again) == ("extends", 12, 0, 0)
    assert after == whole


def test_the_split_of_a_folder_is_extended_there_though_nothing_else_is_remembered():
    _, before = divide(store(cohort(range(16))))
    for name in list(cache.names(kept.NAME)):
        cache.remove(cache.place(kept.NAME, name))
    made, after = divide(store(cohort(range(24)), "more"))
    assert lineage(made) == ("extends", 8, 4, 0)
    assert before.items() <= after.items()
    assert sum(map(len, parts())) == len(cohort(range(24)))
    assert sorted(path.name for path in Path("out").iterdir()) == sorted(FILES)
    assert not list(Path().glob(".building-*"))


@pytest.mark.slow
def test_another_threshold_changes_no_side():
    _, before = divide(store(cohort(range(16))), to="a")
    made, after = divide(store(cohort(range(16)), thresholds={"Fat": 0.1, "Muscle": 0.0}), to="b")
    assert lineage(made) == ("extends", 8, 0, 0)
    assert before == after


def test_the_same_again_leaves_the_files_and_what_is_harmed_is_written_anew():
    tiles = store(cohort(range(16)))
    divide(tiles)
    times = {name: Path("out", name).stat().st_mtime_ns for name in FILES}
    divide(tiles)
    assert times == {name: Path("out", name).stat().st_mtime_ns for name in FILES}
    Path("out/test_tiles.parquet").write_bytes(b"")
    divide(tiles)
    assert sum(map(len, parts())) == len(cohort(range(16)))


def test_a_patient_whose_slides_were_on_both_sides_is_refused_by_name():
    _, sides = divide(store(cohort(range(16))))
    train, test = (next(group for group, one in sides.items() if one == side)
                   for side in ("train", "test"))  # fmt: skip
    merged = dict.fromkeys((2 * int(test[1:]), 2 * int(test[1:]) + 1), train)
    before = Path("out/manifest.json").read_bytes()
    with pytest.raises(SplitError) as refused:
        divide(store(cohort(range(16), merged), "merged"))
    assert f"patient_id {train}: patient_id {train} was in train, slide_id s" in str(refused.value)
    assert Path("out/manifest.json").read_bytes() == before
    made, _ = divide(store(cohort(range(16), merged), "merged"), new=True)
    assert made.origin.why == "new, as asked for"


@pytest.mark.slow
def test_a_column_of_the_slides_groups_and_stratifies():
    tiles = cohort(range(16))
    by_slide = tiles.drop_duplicates("slide_id").rename(columns={"slide_id": "id"})
    slides = by_slide[["id", "patient_id", "organ"]].assign(tile_extent_x=1, tile_extent_y=1)
    pq.write_table(pa.Table.from_pandas(slides, preserve_index=False), "slides.parquet")
    _, direct = divide(store(tiles), to="a")
    bare = tiles.drop(columns=["patient_id", "organ"])
    _, joined = divide(store(bare, "bare", slides="slides.parquet"), to="b")
    assert direct == joined
    assert list(parts("b")[1].columns) == list(bare.columns)


def test_numbers_truths_and_other_names_of_columns_are_read_and_written_as_they_are():
    tiles = cohort(range(16))
    number = tiles["patient_id"].str[1:].astype(int)
    renamed = tiles.assign(patient_id=number, biopsy=number % 2 == 0, fold=0)
    renamed = renamed.rename(columns={"slide_id": "case"})
    spec = {"columns": {"slide_id": "case"}}
    _, sides = divide(store(renamed, **spec), replace(RULES, stratify=("biopsy",)))
    train, test = parts()
    assert list(train.columns) == list(renamed.columns)
    assert list(test.columns) == [name for name in renamed.columns if name != "fold"]
    assert pq.read_schema("out/split.parquet").field("patient_id").type == pa.int64()
    assert set(test["patient_id"].map(str)) == {g for g, side in sides.items() if side == "test"}
    with pytest.warns(FeatureStoreWarning, match=r"not 25.0%"):
        divide(store(renamed, **spec), SplitRules(0.25, "biopsy", ()), to="halves")


@pytest.mark.parametrize(
    ("rules", "changed", "kind", "words"),
    [
        (replace(RULES, group="patient"), {}, SchemaError, ["'patient'", "did you mean"]),
        (replace(RULES, stratify=("organs",)), {}, SchemaError, ["'organs'", "did you mean"]),
        (RULES, {"patient_id": "p"}, SplitError, ["One patient_id cannot", "patient_id p"]),
        (RULES, {"patient_id": None}, SchemaError, ["have no patient_id", "105 of them"]),
        (RULES, {"roi_coverage_Muscle": 0.0, "roi_coverage_Fat": 0.0}, EmptyViewError,
         ["Every tile is dropped", "background 105"]),
        (replace(RULES, stratify=("weight",)), {"weight": 0.5}, SchemaError, ["floating-point"]),
        (replace(RULES, group="split"), {}, SchemaError, ["rename the column"]),
    ],
)  # fmt: skip
def test_what_cannot_be_split_is_refused_and_leaves_nothing(
    rules: SplitRules, changed: dict, kind: type[FeatureStoreError], words: list[str]
):
    with pytest.raises(kind) as refused:
        divide(store(cohort(range(15), **changed)), rules)
    assert all(word in str(refused.value) for word in words), refused.value
    assert [path.name for path in Path().iterdir() if path.name != "tiles.parquet"] == []


def test_too_many_strata_are_refused():
    tiles = cohort(range(200))
    with pytest.raises(SchemaError, match="more than 1,000 strata"):
        divide(store(tiles.assign(nr=range(len(tiles)))), replace(RULES, stratify=("nr",)))


def test_a_folder_of_something_else_stays_as_it_is():
    tiles = store(cohort(range(8)))
    Path("other").mkdir()
    Path("other/notes.txt").write_text("mine")
    Path("file").write_text("mine")
    for name in ("other", "file"):
        with pytest.raises(ArtifactError, match="holds something else"):
            divide(tiles, to=name)
    divide(tiles)
    Path("out/notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="holds something else"):
        divide(store(cohort(range(12)), "more"))
    assert Path("out/notes.txt").read_text() == Path("other/notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_a_split_by_other_rules_is_no_place_for_this_one():
    divide(store(cohort(range(8))))
    with pytest.raises(SplitError, match="made by other rules") as refused:
        divide(store(cohort(range(8))), replace(RULES, test=0.5))
    assert "--test 0.25, now 0.5" in str(refused.value)
    made, _ = divide(store(cohort(range(8))), replace(RULES, test=0.5), new=True)
    assert made.balance[0]["share"] == pytest.approx(0.5, abs=0.05)


def test_a_harmed_table_is_refused():
    divide(store(cohort(range(8))))
    Path("out/split.parquet").write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match="A split cannot be read"):
        divide(store(cohort(range(12)), "more"))


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture
def config() -> list[str]:
    store(cohort(range(16)))
    rules = {"tissue_prop_min": 0.2, "data": {"tiles": "tiles.parquet"}, **CLASSES}
    Path("store.yaml").write_text(json.dumps(rules))
    return ["--config", "store.yaml", "split", "--group", "patient_id", "--stratify", "organ,label"]


@pytest.mark.slow
def test_it_is_logged_with_a_run_of_its_own_once_and_found_by_whoever_shares_mlflow(
    config: list[str], capsys: pytest.CaptureFixture[str]
):
    assert cli.main([*config, "--to", "out"]) == 0
    shown = capsys.readouterr().out
    assert "tiles that the label rules keep, by organ, label" in shown
    assert "breast, Muscle" in shown
    [run] = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.data.tags["featurestore.split.why"] == "first"
    logged = {item.path for item in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
    assert logged == set(FILES)
    assert f"runs:/{run.info.run_id}" in shown
    for name in list(cache.names(kept.NAME)):
        cache.remove(cache.place(kept.NAME, name))
    store(cohort(range(24)))
    assert cli.main([*config, "--to", "elsewhere"]) == 0
    assert "extends" in capsys.readouterr().out
    assert len(mlflow.search_runs(search_all_experiments=True, output_format="list")) == 2


def test_few_strata_are_shown_and_the_others_are_told(
    config: list[str], capsys: pytest.CaptureFixture[str]
):
    tiles = cohort(range(32))
    store(tiles.assign(organ=tiles["x"].map(str) + tiles["organ"]))
    assert cli.main([*config, "--to", "out", "--no-log"]) == 0
    shown = capsys.readouterr().out
    rows = len(json.loads(Path("out/manifest.json").read_text())["balance"]) - 1
    assert rows > 20
    assert f"... and {rows - 20} smaller strata, in out/manifest.json" in shown


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--to", "out", "--test", "1.5"], "--test is out of bounds"),
        (["--to", "out", "--group", "patient"], "did you mean 'patient_id'?"),
        (["--to", "store.yaml"], "holds something else than a split"),
    ],
)
def test_the_command_refuses_and_leaves_nothing(
    config: list[str], more: list[str], words: str, capsys: pytest.CaptureFixture[str]
):
    assert cli.main([*config, *more, "--no-log"]) == 2
    assert words in capsys.readouterr().err
    assert sorted(path.name for path in Path().iterdir()) == ["store.yaml", "tiles.parquet"]


def test_the_part_to_train_on_is_not_split_over_itself(
    config: list[str], capsys: pytest.CaptureFixture[str]
):
    assert cli.main([*config, "--to", "out", "--no-log"]) == 0
    rules = {"data": {"tiles": "out/kfold_tiles.parquet"}, **CLASSES}
    Path("store.yaml").write_text(json.dumps(rules))
    assert cli.main([*config, "--to", "out", "--no-log"]) == 2
    error = capsys.readouterr().err
    assert "is a place of the artifacts that are asked" in error
    assert "set data.tiles to the tiles that it is to divide" in error


def test_a_configuration_that_names_the_files_of_a_split_extends_it(
    config: list[str], capsys: pytest.CaptureFixture[str]
):
    """What is trained on and tested is one configuration; what has joined is its own argument."""
    rules = {"data": {"tiles": "out/kfold_tiles.parquet", "test_tiles": "out/test_tiles.parquet"}}
    Path("store.yaml").write_text(json.dumps({**rules, **CLASSES}))
    store(cohort(range(8, 32)), "later")
    assert cli.main([*config, "data.tiles=tiles.parquet", "--to", "out", "--no-log"]) == 0
    before = pq.read_table("out/split.parquet").to_pylist()
    joined = "data.tiles=[tiles.parquet,later.parquet]"
    store(cohort(range(8)))
    assert cli.main([*config, joined, "--to", "out", "--no-log"]) == 0
    assert "extends" in capsys.readouterr().out
    after = {
        row["patient_id"]: row["split"] for row in pq.read_table("out/split.parquet").to_pylist()
    }
    assert len(after) > len(before)
    assert all(after[row["patient_id"]] == row["split"] for row in before)


@pytest.mark.slow
def test_a_store_of_both_parts_finds_no_leak_between_them():
    divide(store(cohort(range(24))))
    vectors = [{**key, "embedding": [float(n), 1.0]} for n, key in
               enumerate(cohort(range(24))[KEY].to_dict("records"))]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(vectors), "embeddings.parquet")
    spec = StoreSpec(
        tiles="out/kfold_tiles.parquet", test_tiles="out/test_tiles.parquet",
        embeddings="embeddings.parquet", kfold_strategy="stratified_group",
        kfold_group="patient_id", k=3, **CLASSES,
    )  # fmt: skip
    made = materialise(FeatureStore(spec), Rows(None))
    leaks = {one.check: one.count for one in made.findings if "training and test" in one.check}
    assert leaks == {
        "values of slide_id among both training and test tiles": 0,
        "values of patient_id among both training and test tiles": 0,
    }


@pytest.mark.slow
def test_spark_counts_and_writes_the_same():
    """Its columns are the slides', the tiles' and the label's."""
    tiles = cohort(range(8))
    by_slide = tiles.drop_duplicates("slide_id").rename(columns={"slide_id": "id"})
    slides = by_slide[["id", "patient_id"]].assign(tile_extent_x=1, tile_extent_y=1)
    pq.write_table(pa.Table.from_pandas(slides, preserve_index=False), "slides.parquet")
    bare = tiles.drop(columns="patient_id")
    _, here = divide(store(bare, slides="slides.parquet"), to="a")
    cache.remove(cache.place(kept.NAME, cache.names(kept.NAME)[0]))
    _, there = divide(store(bare, slides="slides.parquet", backend="pyspark"), to="b")
    assert here == there
    for one, other in zip(parts("a"), parts("b"), strict=True):
        pd.testing.assert_frame_equal(one, other)
