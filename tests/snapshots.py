"""Snapshots of the small artifacts."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore import FeatureStore, StoreSpec
from featurestore.snapshots.build import materialise
from featurestore.snapshots.snapshot import Snapshot

RULES = {"class_indices": {"Fat": 1, "Muscle": 0}, "thresholds": {"Fat": 0.5, "Muscle": 0.5}}


def spec(named: dict[str, str], **rules: object) -> StoreSpec:
    places = {key.removeprefix("data."): value for key, value in named.items()}
    return StoreSpec(**{**RULES, **places, **rules})  # type: ignore[arg-type]


def snapshot(named: dict[str, str], **rules: object) -> Snapshot:
    return materialise(FeatureStore(spec(named, **rules)))


SLIDES = {
    "id": [f"s{n}" for n in range(4)], "path": ["p"] * 4,
    "tile_extent_x": [1] * 4, "tile_extent_y": [1] * 4,
}  # fmt: skip


def slides(tmp_path: Path, **changed: list) -> str:
    pq.write_table(pa.table({**SLIDES, **changed}), tmp_path / "slides.parquet")
    return str(tmp_path / "slides.parquet")
