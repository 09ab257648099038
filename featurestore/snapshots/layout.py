"""Where the parts of a snapshot lie in its folder."""

import hashlib
import json
from typing import Any

from featurestore.embeddings.matrix import EmbeddingMatrix
from featurestore.io import cache

SNAPSHOTS, MATRICES = "snapshots", "matrices"


FORMAT = 3  # of the folder


MANIFEST = "manifest.json"


SLIDES = "slides.parquet"


Matrices = dict[str, tuple[EmbeddingMatrix, cache.CacheEntry]]
"""By the prefix of a cohort."""


def combined_digest(content: dict[str, Any]) -> str:
    """Return the SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=dict).encode()).hexdigest()
