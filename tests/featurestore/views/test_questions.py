"""The questions in sql/, each against pandas over the same few tiles."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CLASSES, ROOT

from featurestore import FeatureStore, StoreSpec

# Two scans of one slide (b and c), an organ that one patient lacks, tiles near the threshold 0.5.
TILES = pd.DataFrame(
    [
        # slide, x, fat, muscle, organ, patient
        ("a", 0, 0.90, 0.00, "breast", "P1"),
        ("a", 1, 0.52, 0.00, "breast", "P1"),
        ("a", 2, 0.48, 0.10, "breast", "P1"),
        ("a", 3, 0.00, 0.00, "breast", "P1"),
        ("b", 0, 0.00, 0.70, "colon", "P2"),
        ("b", 1, 0.00, 0.55, "colon", "P2"),
        ("b", 2, 0.80, 0.20, "colon", "P2"),
        ("c", 0, 0.00, 0.70, None, "P2"),
        ("c", 1, 0.00, 0.55, None, "P2"),
        ("c", 2, 0.10, 0.56, None, "P2"),
    ],
    columns=["slide_id", "x", "roi_coverage_Fat", "roi_coverage_Muscle", "organ", "patient_id"],
).assign(y=0, fold=[0, 0, 0, 1, 1, 1, 1, 0, 0, 0])
HELD_OUT = pd.DataFrame(
    [
        ("t", 0, 0.9, 0.0, None, "P2"),
        ("u", 0, 0.0, 0.9, None, "P3"),
        ("v", 0, 0.3, 0.0, None, "P1"),
    ],
    columns=["slide_id", "x", "roi_coverage_Fat", "roi_coverage_Muscle", "organ", "patient_id"],
).assign(y=0)
SHARES = ["roi_coverage_Fat", "roi_coverage_Muscle"]


def marked(tiles: pd.DataFrame) -> pd.DataFrame:
    """Add label, its coverage, and whether the tile is kept (a threshold of 0.5 for each class)."""
    own = tiles[SHARES].max(axis=1)
    label = tiles[SHARES].idxmax(axis=1).str.removeprefix("roi_coverage_")
    return tiles.assign(label=label.where(own > 0, "background"), own=own, kept=own >= 0.5)


def store(folder: Path, tiles: pd.DataFrame = TILES, held_out: pd.DataFrame = HELD_OUT):
    for name, rows in (("tiles", tiles), ("test", held_out)):
        table = pa.Table.from_pandas(rows, preserve_index=False)
        pq.write_table(table, folder / f"{name}.parquet")
        vectors = pa.FixedSizeListArray.from_arrays(
            pa.array([float(n) for n in range(len(rows))]), 1
        )
        pq.write_table(
            table.select(["slide_id", "x", "y"]).append_column("embedding", vectors),
            folder / f"{name}_embeddings.parquet",
        )
    return FeatureStore(
        StoreSpec(
            tiles="tiles.parquet", embeddings="tiles_embeddings.parquet",
            test_tiles="test.parquet", test_embeddings="test_embeddings.parquet",
            single_class=False, **CLASSES,
        )
    )  # fmt: skip


def answer(store: FeatureStore, question: str) -> list[dict]:
    return store.sql((ROOT / "sql" / f"{question}.sql").read_text()).to_pyarrow().to_pylist()


def records(frame: pd.DataFrame) -> list[dict]:
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def test_class_organ(tmp_path: Path):
    tiles = marked(TILES)
    counts = tiles.groupby(["organ", "label"], dropna=False).agg(
        tiles=("x", "size"), kept=("kept", "sum"), slides=("slide_id", "nunique")
    ).reset_index()  # fmt: skip
    totals = counts.groupby("organ", dropna=False)["tiles"].transform("sum")
    counts["percent_of_organ"] = (100 * counts["tiles"] / totals).round(1)
    got = answer(store(tmp_path), "class_organ")
    order = [(row["organ"], row["label"]) for row in got]
    assert order == [
        ("breast", "Fat"), ("breast", "background"), ("colon", "Muscle"), ("colon", "Fat"),
        (None, "Muscle"),
    ]  # fmt: skip
    assert sorted(got, key=str) == sorted(records(counts), key=str)


def test_class_organ_where_no_tile_tells_its_organ(tmp_path: Path):
    got = answer(store(tmp_path, TILES.drop(columns="organ")), "class_organ")
    assert {row["organ"] for row in got} == {None}
    assert sum(row["tiles"] for row in got) == len(TILES)


def test_near_threshold(tmp_path: Path):
    tiles = marked(TILES)
    tiles["margin"] = (tiles["own"] - 0.5).round(4)
    near = tiles[(tiles["label"] != "background") & (tiles["margin"].abs() <= 0.05)]
    got = answer(store(tmp_path), "near_threshold")
    assert [(row["slide_id"], row["x"], row["margin"], row["kept"]) for row in got] == [
        ("a", 1, 0.02, True), ("a", 2, -0.02, False), ("b", 1, 0.05, True), ("c", 1, 0.05, True),
    ]  # fmt: skip
    assert {(row["slide_id"], row["x"]) for row in got} == set(
        zip(near["slide_id"], near["x"], strict=True)
    )


def test_slide_class_mix(tmp_path: Path):
    kept = marked(TILES).query("kept")
    counts = kept.groupby(["slide_id", "label"]).size().rename("tiles").reset_index()
    totals = counts.groupby("slide_id")["tiles"].transform("sum")
    counts["percent"] = (100 * counts["tiles"] / totals).round(1)
    assert sorted(answer(store(tmp_path), "slide_class_mix"), key=str) == sorted(
        records(counts), key=str
    )


def test_threshold_survival(tmp_path: Path):
    got = answer(store(tmp_path), "threshold_survival")
    assert {row["now_at"] for row in got} == {0.5}
    for name in ("Fat", "Muscle"):
        shares = TILES[f"roi_coverage_{name}"]
        curve = [row for row in got if row["class"] == name]
        assert [row["at_least"] for row in curve] == [step / 20 for step in range(21)]
        assert [row["tiles"] for row in curve] == [
            int(((shares > 0) & (shares >= row["at_least"])).sum()) for row in curve
        ]
        assert (curve[0]["percent"], curve[-1]["percent"]) == (100.0, 0.0)


def test_duplicates_across_slides(tmp_path: Path):
    # b and c agree in two of three tiles; a agrees with none.
    assert answer(store(tmp_path), "duplicates_across_slides") == [
        {"slide": "b", "other_slide": "c", "same_tiles": 2, "percent": 66.7}
    ]


def test_patient_overlap(tmp_path: Path):
    # P1's held-out tile is dropped by its threshold; P3 is not trained on.
    assert answer(store(tmp_path), "patient_overlap") == [
        {"patient": "P2", "training_tiles": 6, "test_tiles": 1}
    ]


def test_patient_overlap_goes_by_slide_where_no_patient_is_known(tmp_path: Path):
    held_out = HELD_OUT.drop(columns="patient_id").assign(slide_id=["b", "u", "v"])
    tiles = TILES.drop(columns="patient_id")
    assert answer(store(tmp_path, tiles, held_out), "patient_overlap") == [
        {"patient": "b", "training_tiles": 3, "test_tiles": 1}
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_thresholds_are_asked_of_floats_as_of_doubles(tmp_path: Path, kind: str):
    """Coverages of 0.5, 0.7 and 0.9 reach the steps of 0.5, 0.7 and 0.9."""
    tiles = TILES.iloc[:3].assign(roi_coverage_Fat=[0.5, 0.7, 0.9], roi_coverage_Muscle=0.0)
    made = store(tmp_path, tiles.astype(dict.fromkeys(SHARES, kind)))
    for question, steps in (("threshold_survival", 20), ("threshold_sweep", 10)):
        reached = {row["at_least"]: row["tiles"] for row in answer(made, question)}
        assert reached == {
            n / steps: sum(share >= n / steps for share in (0.5, 0.7, 0.9))
            for n in range(steps + 1)
        }
    (near,) = answer(made, "near_threshold")
    assert (near["margin"], str(near["margin"]), near["kept"]) == (0.0, "0.0", True)


@pytest.mark.parametrize(("slides", "twice"), [(["a", "b"], 0), (["a", "a"], 1)])
def test_slide_leakage(tmp_path: Path, slides: list[str], twice: int):
    tiles = TILES.iloc[[0, 5]].assign(slide_id=slides, fold=[0, 1])
    assert len(answer(store(tmp_path, tiles), "slide_leakage")) == twice


def test_tiles_without_embedding(tmp_path: Path):
    made = store(tmp_path)
    vectors = pq.read_table("tiles_embeddings.parquet")
    pq.write_table(vectors.slice(2), "tiles_embeddings.parquet")
    [row] = answer(made, "tiles_without_embedding")
    assert row == {"slide_id": "a", "without_embedding": 2, "tiles": 2, "percent": 100.0}
