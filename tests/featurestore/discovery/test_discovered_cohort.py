"""What an artifact is said to hold."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore, StoreSpec
from featurestore.discovery.cohort import cohort_of


@pytest.mark.parametrize(
    ("arrow", "words"),
    [
        (pa.list_(pa.float16(), 2), "2 numbers of float16"),
        (pa.list_(pa.float32()), "2 numbers of float32"),
        (pa.large_list(pa.float64()), "2 numbers of float64"),
    ],
)
def test_the_type_of_embeddings_is_that_of_their_files(arrow: pa.DataType, words: str):
    """Whatever the engine makes of it."""
    vectors = pa.array([[0.0, 1.0]] * 2, arrow)
    table = pa.table({"slide_id": ["a", "b"], "x": [0, 0], "y": [0, 0], "embedding": vectors})
    pq.write_table(table, "embeddings.parquet")
    assert (
        cohort_of(FeatureStore(StoreSpec(embeddings="embeddings.parquet")), "embeddings").vectors
        == words
    )
