"""Export, diff, listing and collection of snapshots, as a user asks for them."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import CLASSES, TABLES

from featurestore import FeatureStore, StoreSpec
from featurestore.console import cli
from featurestore.errors import ArtifactError
from featurestore.io.mlflow_artifacts import use_tracking
from featurestore.snapshots import collection
from featurestore.snapshots.build import materialise
from featurestore.snapshots.export import export

ORDER = [11, 3, 7, 0, 1, 2, 4, 5, 6, 8, 9, 10]  # the artifact is not sorted


@pytest.fixture
def spec(artifacts: TABLES, tmp_path: Path) -> StoreSpec:
    """Return twelve tiles, one dropped, and the same held out under other names."""
    fat = [0.9 if n % 2 else 0.0 for n in range(11)] + [0.1]
    named = artifacts({"roi_coverage_Fat": fat, "organ": ["colon"] * 12, "x": ORDER})
    held_out = {}
    for name in ("tiles", "embeddings"):
        path = Path(named[f"data.{name}"])
        table = pq.read_table(path)
        if name == "tiles":
            named_slides = [f"t{slide}" for slide in table["slide_id"].to_pylist()]
            table = table.set_column(0, "slide_id", [named_slides]).drop_columns(["fold"])
        else:
            table = table.set_column(
                0, "slide_id", [[f"t{s}" for s in table["slide_id"].to_pylist()]]
            ).set_column(1, "x", [ORDER])
            keyed = pq.read_table(path)
            pq.write_table(keyed.set_column(1, "x", [ORDER]), path)
        held_out[f"test_{name}"] = str(path.with_name(f"test_{name}.parquet"))
        pq.write_table(table, held_out[f"test_{name}"])
    places = {key.removeprefix("data."): value for key, value in named.items()}
    return StoreSpec(**{**CLASSES, **places}, **held_out)


def exported(spec: StoreSpec, to: str) -> Path:
    store = FeatureStore(spec)
    return Path(export(store, materialise(store), to))


@pytest.mark.slow
def test_what_was_written_is_read_back_as_an_artifact(spec: StoreSpec, tmp_path: Path):
    folder = exported(spec, str(tmp_path / "out"))
    sides = {
        "tiles": "train/tiles", "embeddings": "train/tiles", "slides": "train/slides",
        "test_tiles": "test/tiles", "test_embeddings": "test/tiles",
    }  # fmt: skip
    again = StoreSpec(**CLASSES, **{key: f"{folder}/{file}.parquet" for key, file in sides.items()})
    ours, theirs = (materialise(FeatureStore(s)).fit_set(1) for s in (spec, again))
    for column in ("slide_id", "x", "y", "target", "validation"):
        if column in ours.keys.column_names:
            assert ours.keys[column].to_pylist() == theirs.keys[column].to_pylist()
    np.testing.assert_array_equal(
        ours.matrix.read_rows(ours.keys["row"].to_numpy()),
        theirs.matrix.read_rows(theirs.keys["row"].to_numpy()),
    )


@pytest.mark.slow
def test_files_are_portable_and_sorted(spec: StoreSpec, tmp_path: Path):
    folder = exported(spec, str(tmp_path / "out"))
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))
    assert names == ["manifest.json"] + [
        f"{side}/{name}"
        for side in ("test", "train")
        for name in ("funnel.json", "labels.json", "slides.parquet", "tiles.parquet")
    ]
    tiles = pq.read_table(folder / "train" / "tiles.parquet")
    keys = [tuple(row.values()) for row in tiles.select(["slide_id", "x", "y"]).to_pylist()]
    assert keys == sorted(keys)
    assert len(keys) == 11
    assert str(tiles.schema.field("embedding").type).startswith("fixed_size_list<")
    assert {"label", "fold", "organ", "roi_coverage_Fat"} <= set(tiles.column_names)
    funnel = json.loads((folder / "train" / "funnel.json").read_text())
    assert [row["tiles"] for row in funnel if row["reason"] == "kept"] == [11]
    labels = json.loads((folder / "train" / "labels.json").read_text())
    assert sum(row["tiles"] for row in labels) == 11


@pytest.mark.slow
def test_mlflow_holds_it_once(spec: StoreSpec, tmp_path: Path):
    use_tracking(f"sqlite:///{tmp_path}/mlflow.db")
    store = FeatureStore(spec)
    places = {export(store, materialise(store), "mlflow") for _ in range(2)}
    [place] = places
    assert place.startswith("runs:/")
    folder = Path(mlflow.artifacts.download_artifacts(place))
    assert pq.read_metadata(folder / "train" / "tiles.parquet").num_rows == 11
    assert (folder / "test" / "labels.json").is_file()


@pytest.mark.slow
def test_a_folder_that_is_there_is_left_alone(spec: StoreSpec, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="out"):
        exported(spec, str(tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def ask(spec: StoreSpec, *argv: str) -> int:
    fields = {name: value for name, value in vars(spec).items() if value not in (None, {})}
    uris = {name: fields.pop(name) for name in [*fields] if name.endswith(("tiles", "embeddings"))}
    Path("store.yaml").write_text(yaml.safe_dump({"data": uris, **fields}))
    return cli.main(["--config", "store.yaml", "--tracking-uri", "sqlite:///mlflow.db", *argv])


@pytest.mark.slow
def test_commands_from_materialise_to_gc(spec: StoreSpec, capsys: pytest.CaptureFixture[str]):
    from dataclasses import replace

    assert ask(spec, "materialise") == 0
    first = capsys.readouterr().out.split("snapshot: ")[1].strip()
    assert ask(replace(spec, thresholds={"Fat": 0.95, "Muscle": 0.5}), "materialise") == 0
    second = capsys.readouterr().out.split("snapshot: ")[1].strip()
    assert ask(spec, "materialise", "--storage", "float16") == 0
    third = capsys.readouterr().out.split("snapshot: ")[1].strip()
    assert len({first, second, third}) == 3

    assert ask(spec, "snapshots") == 0
    output = capsys.readouterr().out
    assert all(name in output for name in (first, second, third))

    assert ask(spec, "diff", first[:8], second) == 0
    output = capsys.readouterr().out
    assert "thresholds.Fat" in output
    assert "0.95" in output
    assert "dropped by class_threshold" in output

    assert ask(spec, "diff", first, "nope") == 2
    assert "nope" in capsys.readouterr().err

    # What stays is what was used last: the refused comparison opened the first.
    assert ask(spec, "gc", "--keep", "1") == 0
    assert capsys.readouterr().out.count("removed ") >= 2
    assert collection.listing()["snapshot"].to_pylist() == [first]


@pytest.mark.slow
def test_diff_counts_the_tiles_that_moved(spec: StoreSpec):
    from dataclasses import replace

    from featurestore.snapshots import diff

    before = materialise(FeatureStore(spec))
    after = materialise(FeatureStore(replace(spec, thresholds={"Fat": 0.95, "Muscle": 0.5})))
    tables = {title: table.to_pylist() for title, table in diff.difference(before, after)}
    assert tables["rules and artifacts"] == [
        {"rule": "thresholds.Fat", "before": "0.5", "after": "0.95"}
    ]
    assert [list(row.values()) for row in tables["tiles per fold and label"]] == [
        [0, "Fat", 3, 0], [1, "Fat", 2, 0],
    ]  # fmt: skip
    assert [(row["before"], row["after"], row["tiles"]) for row in tables["tiles that moved"]] == [
        ("Fat in fold 0", "dropped by class_threshold", 3),
        ("Fat in fold 1", "dropped by class_threshold", 2),
    ]
    assert all(not len(table) for _, table in diff.difference(before, before))
