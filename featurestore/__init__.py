"""A feature store over Parquet tile artifacts: label, threshold and fold views on DuckDB."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featurestore.errors import FeatureStoreError
    from featurestore.snapshots.tile_set import TileSet
    from featurestore.spec.store_spec import StoreSpec
    from featurestore.store import FeatureStore

__all__ = ["FeatureStore", "FeatureStoreError", "StoreSpec", "TileSet"]

_MODULES = {
    "FeatureStore": "featurestore.store",
    "FeatureStoreError": "featurestore.errors",
    "StoreSpec": "featurestore.spec.store_spec",
    "TileSet": "featurestore.snapshots.tile_set",
}


def __getattr__(name: str) -> object:
    """Import what the package offers when it is asked for: help waits for no engine (PEP 562)."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
