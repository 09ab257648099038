"""Embeddings as any writer types them: DuckDB and pyarrow read the same rows, or one refuses."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import FeatureStore, StoreSpec
from featurestore.embeddings.batches import as_matrix, embedding_batches, read_keys, row_groups
from featurestore.errors import FeatureStoreError
from featurestore.validation import violations

DIM = 2
TEXT = [
    pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.uint16(), pa.large_string()),
]  # fmt: skip
INTEGERS = [
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32()),
    *(pa.uint64(), pa.dictionary(pa.int8(), pa.int32())),
]
LISTS = [
    *map(pa.list_, (pa.float16(), pa.float32(), pa.float64())), pa.list_(pa.float64(), DIM),
    pa.large_list(pa.float32()), pa.fixed_shape_tensor(pa.float64(), [DIM]),
]  # fmt: skip
if int(pa.__version__.partition(".")[0]) >= 25:  # the first that writes them to Parquet
    LISTS += [pa.list_view(pa.float32()), pa.large_list_view(pa.float64())]
OTHERS: dict[str, list[pa.DataType]] = {
    "slide_id": [pa.binary(), pa.int64()],
    "x": [pa.float64(), pa.float16(), pa.string(), pa.decimal128(19, 0), pa.date32()],
    "embedding": [pa.list_(pa.int8()), pa.list_(pa.bool_()), pa.list_(pa.string())],
}
"""What no two files can have beside the types above, and of keys no file."""


@st.composite
def artifacts(draw: Any) -> tuple[dict[str, pa.Table], bool]:
    """Draw the files of an artifact by their names, and whether they are as they should be."""
    kinds = {"slide_id": TEXT, "x": INTEGERS, "embedding": LISTS}
    wrong = draw(st.sampled_from([None, None, *OTHERS, "lacking", "folder"]))
    given_by = draw(st.sampled_from([None, "slide_id", "x"]))
    if wrong in (given_by, "folder" if not given_by else None):
        wrong = None
    files = {}
    for number in range(draw(st.integers(2, 3))):
        types = {name: draw(st.sampled_from(choice)) for name, choice in kinds.items()}
        if number == 1 and wrong in OTHERS:
            types[wrong] = draw(st.sampled_from(OTHERS[wrong]))
        values = {"slide_id": number, "x": number, "embedding": [number, 1]}
        columns = {name: column(values[name], kind) for name, kind in types.items()}
        columns["y"] = pa.array([0], pa.int16())
        folder = "."
        if given_by and not (wrong == "folder" and number == 1):
            folder = f"{given_by}={number}"
            if draw(st.booleans()):  # some writers leave the column in the file
                del columns[given_by]
        if number == 1 and wrong == "lacking":
            columns.pop(draw(st.sampled_from([n for n in columns if n != given_by])))
        names = draw(st.permutations(sorted(columns)))
        files[f"{folder}/{number}.parquet"] = pa.table({name: columns[name] for name in names})
    return files, wrong is None


def column(value: Any, kind: pa.DataType) -> pa.Array:
    """Return one value in a type."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return pa.ExtensionArray.from_storage(kind, pa.array([value], kind.storage_type))
    if pa.types.is_dictionary(kind):
        return pa.array([value]).cast(kind.value_type).dictionary_encode().cast(kind)
    if kind == pa.list_(pa.float16()):
        return pa.array([np.array(value, np.float16)], kind)
    if kind == pa.list_(pa.bool_()):
        return pa.array([[True, False]])
    if pa.types.is_date(kind):
        return pa.array([value], pa.int32()).cast(kind)
    if pa.types.is_binary(kind):
        return pa.array([str(value).encode()])
    if isinstance(value, list):
        inner = kind.value_type
        return pa.array([[str(v) if pa.types.is_string(inner) else v for v in value]], kind)
    return pa.array([value]).cast(kind)


@pytest.mark.filterwarnings("ignore::featurestore.errors.FeatureStoreWarning")
@settings(deadline=None, max_examples=examples(20))
@given(artifacts())
def test_both_readers_read_the_same_rows_or_the_artifact_is_refused(
    drawn: tuple[dict[str, pa.Table], bool],
):
    files, sound = drawn
    with tempfile.TemporaryDirectory() as root:
        for name, table in files.items():
            (Path(root) / name).parent.mkdir(exist_ok=True)
            pq.write_table(table, Path(root) / name)
        store = FeatureStore(StoreSpec(embeddings=root), threads=1)
        try:
            view = store.view("embeddings").order_by("x").to_pyarrow()
        except FeatureStoreError:
            assert not sound
            listed = violations(FeatureStore(store.spec, threads=1))
            assert "error" in listed["severity"].to_pylist()
            return
        assert sound
        expected = [(str(n), n, 0, [n, 1]) for n in range(len(files))]
        assert [tuple(row.values()) for row in view.to_pylist()] == expected
        artifact = store.sources.dataset("embeddings")
        keys = read_keys(artifact.filled).to_pylist()
        vectors = [
            vector
            for group in row_groups(artifact.filled)
            for batch in embedding_batches(group, DIM)
            for vector in as_matrix(batch, DIM).tolist()
        ]
        read = [(*key.values(), vector) for key, vector in zip(keys, vectors, strict=True)]
        assert sorted(read) == expected
