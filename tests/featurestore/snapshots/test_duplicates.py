"""Near duplicates across the split: against all pairs, named by slides, in linear time."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TABLES
from snapshots import snapshot

from featurestore.embeddings import near
from featurestore.errors import FeatureStoreWarning, LeakageError
from featurestore.snapshots import duplicates as module
from featurestore.snapshots.duplicates import duplicates
from featurestore.spec.literals import Storage

GROUPED = {"kfold_strategy": "stratified_group"}


def artifact(folder: Path, vectors: np.ndarray, slides: int, name: str = "s") -> dict[str, str]:
    """Write tiles that are embeddings as well; a fold has every second slide."""
    folder.mkdir(exist_ok=True)
    numbers = np.arange(len(vectors))
    slide = numbers * slides // len(vectors)
    file = folder / f"{name}.parquet"
    keys = {"slide_id": [f"{name}{n}" for n in slide], "x": numbers, "y": numbers}
    covered = {
        "roi_coverage_Fat": (numbers % 2) * 0.9,
        "roi_coverage_Muscle": (1 - numbers % 2) * 0.8,
    }
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    pq.write_table(pa.table(keys | covered | {"fold": slide % 2, "embedding": lists}), file)
    return {"data.tiles": str(file), "data.embeddings": str(file)}


def by_all_pairs(vectors: np.ndarray, fold: np.ndarray) -> set[int]:
    """Return the rows with a near one in the other fold, each compared with each."""
    wide = vectors.astype(np.float64)
    apart = np.abs(wide[:, None] - wide[None]).max(axis=2)
    is_near = apart <= near.TOLERANCE * np.linalg.norm(wide, axis=1)[:, None]
    return set(np.flatnonzero((is_near & (fold[:, None] != fold[None])).any(axis=1)).tolist())


@pytest.mark.slow
@pytest.mark.parametrize("dim", [2, 48])
def test_those_that_all_pairs_find(dim: int, tmp_path: Path):
    """Copies: exact, with zeros of another sign, rounded otherwise, and a little too far."""
    rng = np.random.default_rng(dim)
    vectors = rng.normal(size=(240, dim)).astype(np.float32)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    for number, change in enumerate([0, 5e-7, 5e-6]):
        old, new = np.arange(12) + 12 * number, np.arange(12) + 120 + 12 * number
        vectors[new] = vectors[old] + change * length[old] * rng.choice([-1, 1], (12, dim))
    vectors[200], vectors[10] = 0.0, -0.0
    named = artifact(tmp_path / "in", vectors, slides=24)
    made = snapshot(named)
    pairs = duplicates({"": made.fates()}, made.matrices)
    rows = set(pairs["x"].to_pylist())
    assert rows == by_all_pairs(vectors, np.arange(240) * 24 // 240 % 2)
    assert {10, 200} <= rows
    assert set(pairs["other_x"].to_pylist()) <= rows
    assert all(one != other for one, other in zip(pairs["side"], pairs["other_side"], strict=True))


@pytest.mark.slow
def test_a_renamed_copy_of_the_slides_as_test_set_is_refused_with_its_slides(tmp_path: Path):
    """Written again in other floats; nothing is left of the refused snapshot."""
    vectors = np.random.default_rng(0).normal(size=(40, 32)).astype(np.float32)
    named = artifact(tmp_path / "in", vectors, slides=4)
    copy = (vectors * (1 + 2e-7)).astype(np.float32)
    assert (copy != vectors).any(axis=1).all()
    tested = artifact(tmp_path / "in", copy, slides=4, name="renamed")
    named |= {"test_tiles": tested["data.tiles"], "test_embeddings": tested["data.embeddings"]}
    with pytest.raises(LeakageError, match="tiles with the embedding of a tile") as refusal:
        snapshot(named, **GROUPED)
    assert "80; the first: slide_id" in str(refusal.value)
    assert "by slides (8 pairs): 10 of slide renamed0 (test) in s0 (0)" in str(refusal.value)
    assert not Path(".featurestore").exists()


@pytest.mark.slow
def test_what_leakage_warn_let_be_is_refused_afterwards_and_stays(artifacts: TABLES):
    named = artifacts(None, {"embedding": [[1.0, 2.0, 3.0]] * 12})
    made = snapshot(named, **GROUPED, leakage="warn")
    assert made.findings[-1].count == 12
    with pytest.raises(LeakageError, match="12; the first"):
        snapshot(named, **GROUPED)
    assert snapshot(named, **GROUPED, leakage="warn").digest == made.digest


def count_compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sizes: list[int] = []
    are_near = near.are_near

    def compare(one: np.ndarray, other: np.ndarray, storage: Storage) -> np.ndarray:
        sizes.append(len(one))
        return are_near(one, other, storage)

    monkeypatch.setattr(near, "are_near", compare)
    return sizes


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*so alike")
@pytest.mark.parametrize("apart", [0.0, 4e-6])
def test_embeddings_that_are_all_alike_cost_a_multiple_of_their_number(
    apart: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One constant, or all in one cell and none near another: a few comparisons a tile."""
    rng = np.random.default_rng(0)
    vectors = (np.ones((3000, 8)) + apart * rng.normal(size=(3000, 8))).astype(np.float32)
    sizes = count_compared(monkeypatch)
    made = snapshot(artifact(tmp_path / "in", vectors, slides=30))
    assert sum(sizes) <= near.GRIDS * module.ROUNDS * 3000
    assert max(sizes) <= module.COMPARED
    if not apart:
        assert made.findings[-1].count == 3000
        assert sum(sizes) == 3000  # one grid has found them all


@pytest.mark.slow
def test_it_is_said_where_too_many_are_alike(tmp_path: Path):
    rng = np.random.default_rng(0)
    vectors = (np.ones((200, 8)) + 4e-6 * rng.normal(size=(200, 8))).astype(np.float32)
    with pytest.warns(FeatureStoreWarning, match="near duplicates across the split may have been"):
        snapshot(artifact(tmp_path / "in", vectors, slides=20))
