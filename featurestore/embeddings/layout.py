"""How parts lie on the disk."""

from collections.abc import Callable
from functools import cache
from io import BytesIO

import ml_dtypes
import numpy as np
import numpy.typing as npt

STORED: dict[str, np.dtype] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


FORMAT = 4  # of a part; up to 3 all embeddings of an artifact were one matrix


FOLDER = "parts"


VALUES, KEYS = ".npy", ".parquet"
"""What a part's name is followed by: its embeddings, and its keys. A part is there with its keys,
which are written last."""


LOCK = ".lock"  # of the folder: shared by who uses parts that no snapshot names yet


MANIFEST = b"part"
"""The key of a part's shape among the metadata of its keys."""


BLOCK_BYTES = 8 * 2**20


HASH_SEED = 20240229


Rows = npt.NDArray[np.int64]


Advance = Callable[[int], None]
"""Told a number of rows when they are done."""


@cache
def hash_weights(dim: int) -> npt.NDArray[np.uint64]:
    """Return odd factors of the numbers of an embedding, for the digest of a row."""
    draws = np.random.default_rng(HASH_SEED).integers(2**63, size=dim, dtype=np.uint64)
    return draws | np.uint64(1)


HEADER_BYTES = 128  # of an array: NumPy pads to it whatever the shape


def npy_header(rows: int, dim: int, kind: np.dtype) -> bytes:
    """Return the header of an array of embeddings."""
    # NumPy's format has no word for bfloat16: two bytes of any kind are written for it.
    descr = np.lib.format.dtype_to_descr(kind if kind.kind == "f" else np.dtype("V2"))
    stream = BytesIO()
    shape = {"descr": descr, "fortran_order": False, "shape": (rows, dim)}
    np.lib.format.write_array_header_1_0(stream, shape)
    header = stream.getvalue()
    assert len(header) == HEADER_BYTES
    return header
