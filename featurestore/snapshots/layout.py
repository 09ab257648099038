"""What a snapshot's folder holds."""

import pyarrow as pa

from featurestore.embeddings.matrix import EmbeddingMatrix

SNAPSHOTS = "snapshots"
MATRICES = "matrices"  # embeddings of snapshots up to format 3


FORMAT = 4  # of the folder


MANIFEST = "manifest.json"


SLIDES = "slides.parquet"


FATES = "fates"  # what their files are called, behind the prefix of the cohort


PARTS = "parts.parquet"  # of the training tiles; `test_parts.parquet` of the others


PART = pa.schema(
    {
        "part": pa.string(),
        "file": pa.string(),
        "rows": pa.int64(),
        "dim": pa.int64(),
        "storage": pa.string(),
        "content": pa.string(),
    }
)
"""A part of a snapshot's embeddings; ``file`` is what it was made of, by its name at the time."""


Matrices = dict[str, EmbeddingMatrix]
"""By the prefix of a cohort."""
