"""Rows that are read from where they lie are those that h5py reads."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.importing.chunks import stored_rows


@settings(max_examples=examples(60), deadline=None)
@given(
    rows=st.integers(1, 200), width=st.integers(1, 5), chunk=st.none() | st.integers(1, 70),
    dtype=st.sampled_from(["f2", "f4", ">f4", "f8", "i4", "u2"]),
    earlier=st.integers(0, 200), data=st.data(),
)  # fmt: skip
def test_any_rows_are_those_of_h5py(
    *, rows: int, width: int, chunk: int | None, dtype: str, earlier: int, data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
):  # fmt: skip
    """Also of a dataset that has grown, whose chunks lie among those of another one."""
    file = tmp_path_factory.mktemp("h5") / "A.h5"
    values = np.arange(rows * width).reshape(rows, width).astype(dtype)
    with h5py.File(file, "w") as content:
        if chunk is None:
            content["values"] = values
        else:
            first = min(earlier, rows)
            for name in ("values", "others"):
                content.create_dataset(
                    name, data=values[:first], chunks=(chunk, width), maxshape=(None, width)
                )
            for name in ("others", "values"):
                content[name].resize(rows, axis=0)
                content[name][first:] = values[first:]
    start = data.draw(st.integers(0, rows - 1))
    stop = data.draw(st.integers(start + 1, rows))
    with h5py.File(file) as content:
        stored = stored_rows(file, content, content["values"])
        assert stored is not None
        read = stored.read(start, stop)
        assert read.dtype == content["values"].dtype
        np.testing.assert_array_equal(read, content["values"][start:stop])


@pytest.mark.parametrize(
    "settings_of_it",
    [
        {"compression": "gzip", "chunks": (3, 4)},
        {"fletcher32": True, "chunks": (3, 4)},
        {"chunks": (3, 2)},
    ],
    ids=str,
)
def test_what_is_stored_otherwise_is_left_to_hdf5(settings_of_it: dict[str, Any], tmp_path: Path):
    with h5py.File(tmp_path / "A.h5", "w") as content:
        values = content.create_dataset("values", (9, 4), **{"dtype": "f4"} | settings_of_it)
        values[:] = np.ones((9, 4))
    with h5py.File(tmp_path / "A.h5") as content:
        assert stored_rows(tmp_path / "A.h5", content, content["values"]) is None


def test_rows_that_nobody_wrote_are_left_to_hdf5(tmp_path: Path):
    """They are the dataset's fill value, and lie nowhere."""
    with h5py.File(tmp_path / "A.h5", "w") as content:
        content.create_dataset("values", (9, 4), "f4", chunks=(3, 4))[:3] = 1
        content.create_dataset("nothing", (9, 4), "f4")
        content.create_dataset("empty", (0, 4), "f4", chunks=(3, 4), maxshape=(None, 4))
    with h5py.File(tmp_path / "A.h5") as content:
        for name in content:
            assert stored_rows(tmp_path / "A.h5", content, content[name]) is None


def test_a_file_behind_a_block_of_the_users_is_left_to_hdf5(tmp_path: Path):
    with h5py.File(tmp_path / "A.h5", "w", userblock_size=512) as content:
        content["values"] = np.ones((9, 4), np.float32)
    with h5py.File(tmp_path / "A.h5") as content:
        assert stored_rows(tmp_path / "A.h5", content, content["values"]) is None
