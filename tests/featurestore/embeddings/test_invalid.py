"""What is wrong with embeddings, in a few words whatever their number."""

import pickle

import numpy as np
import pyarrow as pa
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.embeddings.invalid import Faults

DIM = 3
ROW = st.tuples(
    st.sampled_from(["a", "b", "Ö"]), st.integers(-3, 3), st.integers(0, 2), st.integers(0, 4)
)


def faults(rows: list[tuple[str, int, int, int]]) -> Faults:
    columns = zip(*rows, strict=True) if rows else [[]] * 4
    slide, x, y, length = (list(column) for column in columns)
    kinds = {"slide_id": pa.string(), "x": pa.int64(), "y": pa.int64()}
    keys = pa.table({"slide_id": slide, "x": x, "y": y}, pa.schema(kinds))
    return Faults.of(keys, np.array(length, dtype=np.int64), DIM)


@settings(max_examples=examples(50), deadline=None)
@given(st.lists(st.lists(ROW, max_size=4), max_size=4))
def test_faults_of_several_add_up_to_those_of_all(parts: list[list[tuple[str, int, int, int]]]):
    rows = [row for part in parts for row in part]
    total = sum(map(faults, parts), Faults())
    for fault, is_short in ((total.lengths, True), (total.values, False)):
        of_kind = sorted(row for row in rows if (row[3] != DIM) == is_short)
        assert fault.count == len(of_kind)
        first = fault.first and (fault.first["slide_id"], fault.first["x"], fault.first["y"])
        assert first == (of_kind[0][:3] if of_kind else None)


def test_a_part_that_is_all_wrong_takes_no_more_words_than_a_row():
    """An artifact of another dimension, for example."""
    few, many = (len(pickle.dumps(faults([("a", n, 0, 9) for n in range(m)]))) for m in (1, 9_999))
    assert many < few + 20
