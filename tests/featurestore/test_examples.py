"""The embedded data keep the contract."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits

from featurestore.examples import TISSUES, SyntheticConfig, uris, write_digits, write_synthetic
from featurestore.snapshots.build import materialise
from featurestore.spec.store_spec import StoreSpec
from featurestore.store import FeatureStore


def test_digits_are_scikit_learns_scans_as_tiles(tmp_path: Path):
    write_digits(tmp_path)
    train, test, slides = (
        pq.read_table(tmp_path / f"{name}.parquet")
        for name in ("kfold_tiles", "test_tiles", "slides")
    )
    assert (len(train), len(test), len(slides)) == (1430, 367, 14)
    assert set(test["slide_id"].to_pylist()) == {"writer-11", "writer-12", "writer-13"}
    assert not set(train["slide_id"].to_pylist()) & set(test["slide_id"].to_pylist())
    images, digit = load_digits(return_X_y=True)
    share = np.stack([train[f"roi_coverage_{d}"].to_numpy() for d in range(10)], axis=1)
    np.testing.assert_array_equal(share.argmax(axis=1), digit[:1430])
    np.testing.assert_allclose(share.sum(axis=1), images[:1430].mean(axis=1) / 16)
    assert ((share > 0).sum(axis=1) == 1).all()
    vectors = pq.read_table(tmp_path / "embeddings" / "digits.parquet")
    np.testing.assert_array_equal(
        vectors["embedding"].combine_chunks().flatten().to_numpy().reshape(1797, 64), images
    )


def spec(folder: Path) -> StoreSpec:
    return StoreSpec(
        tiles=uris(folder)["tiles"],
        test_tiles=uris(folder)["test_tiles"],
        embeddings=uris(folder)["embeddings"],
        slides=uris(folder)["slides"],
        class_indices={name: index for index, name in enumerate(TISSUES)},
        thresholds=dict.fromkeys(TISSUES, 0.1),
        kfold_group="patient_id",
        kfold_strategy="stratified_group",
    )


@pytest.mark.slow
def test_synthetic_cohort_keeps_the_contract_and_shows_every_knob(tmp_path: Path):
    cohort = SyntheticConfig(
        rows=3000, dim=8, slides=20, patients=10, mixed=0.2, missing=0.1, empty=0.05
    )
    write_synthetic(tmp_path, cohort, block=256, files=3)
    assert len(list((tmp_path / "embeddings").iterdir())) == 3
    store = FeatureStore(spec(tmp_path))
    funnel = {row["reason"]: row["tiles"] for row in store.funnel()}
    assert funnel["input"] == 2400  # the slides of eight of the ten patients
    assert funnel["background"] == pytest.approx(0.05 * 2400, rel=0.4)
    assert funnel["multi_class"] == pytest.approx(0.2 * 2400, rel=0.3)
    assert funnel["no_embedding"] == pytest.approx(0.1 * funnel["kept"], rel=0.4)
    assert funnel["kept"] > 1000
    labels = store.label_distribution().to_pydict()
    assert set(labels["label"]) == set(TISSUES)
    patients = store.sql("select count(distinct patient_id) as n from tiles").to_pyarrow()
    assert patients["n"].to_pylist() == [8]
    made = materialise(store)
    assert made.shared(0) == {"slide_id": 0, "patient_id": 0}
    assert len(made.test_set().keys) > 200


def test_synthetic_cohort_is_the_same_for_the_same_seed(tmp_path: Path):
    written = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        write_synthetic(tmp_path / name, SyntheticConfig(rows=500, dim=4, slides=5, seed=seed))
        files = sorted((tmp_path / name).rglob("*.parquet"))
        written.append([pq.read_table(file) for file in files])
    assert written[0] == written[1]
    assert written[0] != written[2]


def test_a_slides_embeddings_share_a_shift(tmp_path: Path):
    write_synthetic(
        tmp_path, SyntheticConfig(rows=2000, dim=16, slides=4, shift=12.0, signal=0.0, missing=0)
    )
    table = pq.read_table(tmp_path / "embeddings")
    x = table["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, 16)
    slide = np.array(table["slide_id"].to_pylist())
    within = np.mean([x[slide == s].std(axis=0).mean() for s in set(slide)])
    assert within == pytest.approx(1, abs=0.1)
    assert x.std(axis=0).mean() > 1.5
