"""A feature store over Parquet tile artifacts: label, threshold and fold views on DuckDB."""

from featurestore.errors import FeatureStoreError
from featurestore.snapshots.tile_set import TileSet
from featurestore.spec.store_spec import StoreSpec
from featurestore.store import FeatureStore

__all__ = ["FeatureStore", "FeatureStoreError", "StoreSpec", "TileSet"]
