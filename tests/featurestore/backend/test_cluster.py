"""A standalone cluster of Spark: a master and two workers, each with folders of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from programs import JAVA

from benchmarks.cluster import driver_environment, standalone
from featurestore import FeatureStore, StoreSpec
from featurestore.io.objects import outlines, shared
from featurestore.snapshots.build import materialise

pytestmark = pytest.mark.slow
SLIDES, TILES, DIM = 6, 4000, 4
MOST = 1  # MiB that may come to the driver at a time: less than the keys of the tiles are
DRIVER = """
import json, sys
from featurestore import FeatureStore, StoreSpec
from featurestore.errors import FeatureStoreError
from featurestore.io.objects import shared
from featurestore.snapshots.build import materialise
shared.use(sys.argv[2])
for rules in json.loads(sys.argv[1]):
    try:
        snapshot = materialise(FeatureStore(StoreSpec(**rules, backend="pyspark")))
        print("MADE", json.dumps([snapshot.digest, snapshot.manifest["cohorts"]]))
    except FeatureStoreError as error:
        print("REFUSED", json.dumps(str(error)))
"""


@pytest.fixture
def cluster(tmp_path: Path, s3_client: Any) -> Iterator[str]:
    """Return the address of a master whose workers know the object store, not the driver's disk."""
    folder, apart = tmp_path / "cluster", tmp_path / "driver"
    folder.mkdir()
    apart.mkdir()
    with standalone(folder, apart if os.geteuid() == 0 else None) as master:
        yield master


@pytest.fixture
def rules(tmp_path: Path, s3_client: Any) -> dict[str, Any]:
    """Return a cohort of one object a slide, whose keys are more than the driver may be given."""
    draws = np.random.default_rng(0)
    (tmp_path / "embeddings").mkdir()
    tiles = []
    for number in range(SLIDES):
        slide = [f"slide-{number}-" + "n" * 52] * TILES
        keys = {"slide_id": slide, "x": list(range(TILES)), "y": [0] * TILES}
        values = pa.array(draws.standard_normal(TILES * DIM).astype(np.float32))
        vectors = pa.FixedSizeListArray.from_arrays(values, DIM)
        pq.write_table(
            pa.table(keys | {"embedding": vectors}), tmp_path / f"embeddings/{number}.parquet"
        )
        share = draws.random(TILES)
        covers = {"roi_coverage_Fat": share, "roi_coverage_Nerve": 1 - share}
        tiles.append(pa.table(keys | covers))
    cohort = pa.concat_tables(tiles)
    assert cohort.select(["slide_id", "x", "y"]).nbytes > MOST * 2**20
    pq.write_table(cohort, tmp_path / "tiles.parquet")
    for file in (tmp_path / "tiles.parquet", *(tmp_path / "embeddings").iterdir()):
        assert file.stat().st_size > outlines.NEAR  # smaller objects are fetched as a whole
        s3_client.upload_file(str(file), "cohort", f"in/{file.relative_to(tmp_path)}")
        file.unlink()
    return {
        "tiles": "s3://cohort/in/tiles.parquet", "embeddings": "s3://cohort/in/embeddings",
        "class_indices": {"Fat": 0, "Nerve": 1}, "thresholds": {"Fat": 0.2, "Nerve": 0.2},
        "single_class": False, "k": 3,
    }  # fmt: skip


def driver(cluster: str, folder: Path, rules: list[dict[str, Any]], store: str) -> list[list[Any]]:
    """Make snapshots in a folder of its own, on a driver of half a gigabyte."""
    settings = {
        "spark.driver.maxResultSize": f"{MOST}m", "spark.sql.shuffle.partitions": 2,
        "spark.executor.memory": "600m", "spark.ui.enabled": "false",
        "spark.executor.extraJavaOptions": f'"{JAVA}"',
    }  # fmt: skip
    environment = driver_environment(cluster, settings)
    command = [sys.executable, "-c", DRIVER, json.dumps(rules), store]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    outcomes = [[word, json.loads(rest)] for word, _, rest in lines if word in ("MADE", "REFUSED")]
    assert len(outcomes) == len(rules), done.stdout + done.stderr
    return outcomes


def test_executors_make_what_duckdb_makes(
    cluster: str, rules: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Parts, fates and folds; what comes to the driver is less than the keys of the tiles are.

    scikit-learn's folds of tiles would bring them there: they are refused.
    """
    hashed = rules | {"fold_rule": "hash"}
    store = "s3://cohort/spark"
    refused, made = driver(cluster, tmp_path / "driver", [rules, hashed], store)
    assert refused[0] == "REFUSED"
    assert "fold_rule=hash" in refused[1]
    assert made[0] == "MADE"
    assert not list((tmp_path / "driver").rglob("*.npy"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    expected = materialise(FeatureStore(StoreSpec(**hashed)))
    assert made[1] == [expected.digest, expected.manifest["cohorts"]]
    rows = [pq.read_table(file) for file in expected.files()]
    expected.entry.lock.close()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    try:
        shared.use(store)
        fetched = materialise(FeatureStore(StoreSpec(**hashed)))
        assert pa.concat_tables(pq.read_table(f) for f in fetched.files()).equals(
            pa.concat_tables(rows)
        )
        tiles = fetched.fit_set(0)
        embeddings = tiles.matrix.read_rows(tiles.keys["row"].to_numpy())
        assert embeddings.shape == (len(tiles.keys), DIM)
        left = [one.key for one in shared.current().store.list_prefix("spark/sent/")]  # type: ignore[union-attr]
        assert left == []
    finally:
        shared.use(None)
