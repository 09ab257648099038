"""Cohorts in object stores: what is asked of the store, counted, from a question to a snapshot."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from machines import Machines
from object_stores import Bucket
from snapshots import RULES

from featurestore import FeatureStore, StoreSpec
from featurestore.console import cli
from featurestore.errors import ArtifactError
from featurestore.io import cache, digests
from featurestore.io.names import resolved_once
from featurestore.io.objects import clouds, originals, shared
from featurestore.snapshots.build import materialise
from featurestore.snapshots.snapshot import Snapshot
from featurestore.validation import violations

TILES, DIM, SLIDES = 300, 1024, 4  # an object is 1.2 MB


@pytest.fixture(autouse=True)
def _remembers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "SETTLED", 0)


def slide(number: int, seed: int = 0) -> bytes:
    """Return the embeddings of a slide, of one size whatever they are."""
    values = np.random.default_rng([number, seed]).random(TILES * DIM, dtype=np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(values), DIM)
    sink = pa.BufferOutputStream()
    rows = pa.table(keys(number)).append_column("embedding", vectors)
    pq.write_table(rows, sink, use_dictionary=False, compression="none")
    return bytes(sink.getvalue())


def keys(number: int) -> dict[str, list]:
    return {"slide_id": [f"s{number}"] * TILES, "x": list(range(TILES)), "y": [0] * TILES}


def write_tiles(slides: int = SLIDES) -> str:
    label = np.arange(TILES) % 2
    tables = [
        pa.table({
            **keys(number), "fold": [number % 2] * TILES,
            "roi_coverage_Fat": 0.9 * label, "roi_coverage_Muscle": 0.9 * (1 - label),
        })
        for number in range(slides)
    ]  # fmt: skip
    pq.write_table(pa.concat_tables(tables), "tiles.parquet")
    return str(Path("tiles.parquet").absolute())


def fill(bucket: Bucket, slides: int = SLIDES) -> int:
    """Write embeddings into a bucket, and return their bytes."""
    bodies = [slide(number) for number in range(slides)]
    for number, body in enumerate(bodies):
        bucket.put(f"e/{number}.parquet", body)
    return sum(map(len, bodies))


def opened(bucket: Bucket, tiles: str | None = None) -> FeatureStore:
    spec = StoreSpec(tiles=tiles or write_tiles(), embeddings=f"{bucket.root}/e", **RULES)
    return FeatureStore(spec)


def made(bucket: Bucket, tiles: str | None = None) -> Snapshot:
    with resolved_once():
        return materialise(opened(bucket, tiles))


def bytes_read(bucket: Bucket) -> float:
    """Return how many bytes were asked for in ranges; a whole object counts as endless."""
    ranges = [at.removeprefix("bytes=") for kind, at in bucket.asked if kind == "get"]
    inclusive = bucket.root.startswith("s3:")
    total = 0.0
    for first, last in (at.split("-") if at else ("", "") for at in ranges):
        total += int(last) + inclusive - int(first) if first else float("inf")
    return total


def whole_objects(bucket: Bucket) -> int:
    """Return how many objects were asked for as a whole."""
    size = len(slide(0))
    return sum(at in ("", f"0-{size}") for kind, at in bucket.asked if kind == "get")


def vectors(snapshot: Snapshot) -> np.ndarray:
    tiles = snapshot.fold_set()
    return tiles.matrix.read_rows(tiles.keys["row"].to_numpy())


@pytest.mark.slow
def test_questions_read_keys_and_footers_alone(bucket: Bucket):
    """Views, funnels, SQL, the rules of the contract, the joins: a tenth of the bytes at most."""
    total = fill(bucket)
    store = opened(bucket)
    assert store.funnel()[0]["tiles"] == SLIDES * TILES
    assert store.label_distribution().num_rows
    joined = "select count(*) as n from fates semi join embeddings e using (slide_id, x, y)"
    assert store.sql(joined).to_pyarrow()["n"].to_pylist() == [SLIDES * TILES]
    assert store.sql("select max(x) as x from embeddings").to_pyarrow()["x"].to_pylist() == [299]
    assert "error" not in violations(store, embeddings=False)["severity"].to_pylist()
    assert 0 < bytes_read(bucket) < total / 10
    assert bucket.count("list") == 1


def test_a_question_about_embeddings_fetches_them(bucket: Bucket):
    fill(bucket)
    store = opened(bucket)
    store.seal()
    answer = store.sql("select count(*) as n from embeddings where embedding[1] >= 0").to_pyarrow()
    assert answer["n"].to_pylist() == [SLIDES * TILES]
    assert whole_objects(bucket) == SLIDES
    assert store.view("embeddings").embedding.length().max().to_pyarrow().as_py() == DIM
    assert whole_objects(bucket) == SLIDES


@pytest.mark.slow
def test_a_snapshot_reads_each_object_once_and_then_none(bucket: Bucket, tmp_path: Path):
    """It has the name and the rows of the one made of files."""
    total = fill(bucket)
    snapshot = made(bucket)
    assert whole_objects(bucket) == SLIDES
    several = [at for at in bucket.asked if at[0] == "get" and at[1] not in ("", f"0-{total // 4}")]
    bucket.asked[:] = several
    assert bytes_read(bucket) < total / 10
    bucket.asked.clear()
    assert made(bucket).digest == snapshot.digest
    assert [kind for kind, _ in bucket.asked] == ["list"]
    (tmp_path / "e").mkdir()
    for number in range(SLIDES):
        (tmp_path / "e" / f"{number}.parquet").write_bytes(slide(number))
    local = StoreSpec(tiles=write_tiles(), embeddings=str(tmp_path / "e"), **RULES)
    same = materialise(FeatureStore(local))
    assert same.digest == snapshot.digest
    assert (vectors(same) == vectors(snapshot)).all()


@pytest.mark.slow
def test_a_changed_object_of_the_same_size_and_a_new_one_are_read_alone(bucket: Bucket):
    fill(bucket)
    before = made(bucket)
    bucket.put("e/1.parquet", slide(1, seed=1))
    bucket.put(f"e/{SLIDES}.parquet", slide(SLIDES))
    bucket.asked.clear()
    after = made(bucket, write_tiles(SLIDES + 1))
    assert whole_objects(bucket) == 2
    changed = {part.name for part in after.matrices[""].parts}
    assert len(changed - {part.name for part in before.matrices[""].parts}) == 2


def test_an_object_replaced_before_its_lists_are_read_is_refused(cloud_bucket: Bucket):
    fill(cloud_bucket)
    store = opened(cloud_bucket)
    store.funnel()
    cloud_bucket.put("e/1.parquet", slide(1, seed=1))
    with pytest.raises(ArtifactError, match=r"e/1.parquet was replaced"):
        materialise(store)


@pytest.mark.slow
def test_what_was_converted_is_not_fetched_after_gc(cloud_bucket: Bucket):
    """Its digest stays remembered, and so does its part."""
    fill(cloud_bucket)
    name = made(cloud_bucket).digest
    assert cli.main(["snapshots", "--tag", "kept", name]) == 0
    for folder in list(cache._BUILT):  # as of a process that has ended
        cache.release(folder)
    assert cli.main(["gc", "--keep", "0"]) == 0
    cloud_bucket.asked.clear()
    assert made(cloud_bucket).digest == name
    assert whole_objects(cloud_bucket) == 0


@pytest.mark.slow
@pytest.mark.parametrize("store", ["folder", "cloud"], indirect=True)
def test_another_machine_fetches_no_object_that_one_has_read(
    machines: Machines, s3_bucket: Bucket, store: str
):
    total = fill(s3_bucket)
    machines.enter("one")
    tiles = write_tiles()
    first = made(s3_bucket, tiles)
    expected = vectors(first)
    for name, rules in (("two", {}), ("three", {"tissue_prop_min": 0.3})):
        machines.enter(name)
        s3_bucket.asked.clear()
        spec = StoreSpec(tiles=tiles, embeddings=f"{s3_bucket.root}/e", **RULES, **rules)
        snapshot = materialise(FeatureStore(spec))
        assert (vectors(snapshot) == expected).all()
        assert bytes_read(s3_bucket) < total / 10
    assert originals.lacking(FeatureStore(spec).sources.dataset("embeddings").files)


def test_one_thing_is_looked_up_without_listing_the_others(
    cloud_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
):
    """Executors ask for a part by its name."""
    for name in ("a" * 32, "b" * 32):
        for file in (shared.PART_KEYS, shared.PART_VALUES):
            cloud_bucket.put(f"parts/{name}/{'0' * 16}/{file}", b"1")
    place = shared.SharedStore.open(cloud_bucket.root, list_all=False)
    list_pages, listed = clouds._client("").list, []
    client = SimpleNamespace(list=lambda folder: listed.append(folder) or list_pages(folder))
    monkeypatch.setattr(place.store, "_client", client)
    [variant] = place.variants("parts", "a" * 32)
    assert set(variant.files) == {shared.PART_KEYS, shared.PART_VALUES}
    assert listed == [f"parts/{'a' * 32}"]
