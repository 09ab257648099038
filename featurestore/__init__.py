"""A feature store over Parquet tile artifacts: label, threshold and fold views on DuckDB."""

from featurestore.errors import FeatureStoreError
from featurestore.spec import StoreSpec, TileSet
from featurestore.store import FeatureStore

__all__ = ["FeatureStore", "FeatureStoreError", "StoreSpec", "TileSet"]
