"""What determines the views, and what is chosen from them: plain values, no engine."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

from featurestore.backend import Engine
from featurestore.folds import Balance, Strategy
from featurestore.guard import Leakage
from featurestore.labels import LabelRule
from featurestore.matrix import Matrix, Storage


@dataclass(frozen=True)
class StoreSpec:
    """All that determines the views: where the artifacts are, and the rules.

    Parameters
    ----------
    tiles, test_tiles, predict_tiles
        URIs of tiles artifacts: for folds, held out, and without need of labels.
    embeddings, test_embeddings
        URIs of embeddings; the test tiles' are among ``embeddings`` unless said otherwise.
    slides
        URI of the slides artifact, shown to SQL.
    class_indices, thresholds
        Class name to target and to least coverage.
    tissue_prop_min, single_class, label_rule
        See `featurestore.thresholds.threshold_view`.
    kfold_strategy, kfold_group, k, seed, balance, allow_empty_class
        See `featurestore.folds.assign_folds`.
    storage
        Type in which embeddings are materialised.
    leakage
        Whether a leak that the strategy promises against is refused.
    backend
        The engine that computes the views.
    """

    tiles: str | None = None
    test_tiles: str | None = None
    predict_tiles: str | None = None
    embeddings: str | None = None
    test_embeddings: str | None = None
    slides: str | None = None
    class_indices: Mapping[str, int] | None = None
    thresholds: Mapping[str, float] | None = None
    tissue_prop_min: float = 0.2
    single_class: bool = True
    label_rule: LabelRule = "dominant"
    kfold_strategy: Strategy = "stratified"
    kfold_group: str = "slide_id"
    k: int = 5
    seed: int = 0
    balance: Balance = "greedy"
    allow_empty_class: bool = False
    storage: Storage = "float32"
    leakage: Leakage = "refuse"
    backend: Engine = "duckdb"

    def __post_init__(self) -> None:
        """Bring class names to the Unicode form in which names of columns are read."""
        for name in ("class_indices", "thresholds"):
            values = getattr(self, name)
            if values is not None:
                composed = {unicodedata.normalize("NFC", key): v for key, v in values.items()}
                object.__setattr__(self, name, composed)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "StoreSpec":
        """Pick a spec out of a resolved configuration (its root and its section ``data``)."""
        flat = {**config, **config.get("data", {})}
        return cls(**{field.name: flat[field.name] for field in fields(cls) if field.name in flat})


@dataclass(frozen=True)
class TileSet:
    """Tiles chosen for a purpose, and where their embeddings are.

    Parameters
    ----------
    keys
        ``slide_id, x, y, target, split, row``, sorted by key; ``target`` is null where unknown,
        ``row`` is that of the matrix. Behind them, more columns of tiles or slides if asked for.
    matrix
        The embeddings.
    """

    keys: pa.Table
    matrix: Matrix
