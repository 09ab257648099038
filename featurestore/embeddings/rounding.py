"""Blocks of single floats rounded to the type in which they are stored."""

import numpy as np
import numpy.typing as npt

from featurestore.embeddings.layout import STORED
from featurestore.spec.literals import Storage

LEAST, ABOVE = np.array([2.0**-14, 65520.0], dtype=np.float32).view(np.uint32)
"""Bits of what half floats hold in full lies between; what is rounded to 65,520 is infinite."""


class Rounding:
    """Rounds blocks in memory of its own, which the next block takes again.

    NumPy makes half floats one number at a time, in 3 ns, and 2 ns back. They are made here by the
    bits of whole blocks (IEEE 754-2019, 4.3.1: to nearest, ties to even), in a third of that; NumPy
    is left with those that are too small, too large or no number.

    Parameters
    ----------
    rows, dim
        Shape of the largest block.
    storage
        Type to round to.
    """

    def __init__(self, rows: int, dim: int, storage: Storage) -> None:
        self.block = np.empty((rows, dim), dtype=np.float32)
        """Memory for a block to be rounded."""
        self._stored = np.empty((rows, dim), dtype=STORED[storage])
        self._rounded = np.empty((rows, dim), dtype=np.float32)
        self._bits = np.empty((2, rows, dim), dtype=np.uint32)

    def __call__(self, block: npt.NDArray[np.float32]) -> tuple[np.ndarray, np.ndarray]:
        """Return a block as it is stored, and what it then is in single floats; both (rows, dim).

        They are overwritten by the next call.
        """
        stored, rounded = self._stored[: len(block)], self._rounded[: len(block)]
        with np.errstate(over="ignore"):  # an infinity is for `InvalidEmbeddings`
            if stored.dtype == np.float32:
                block = np.ascontiguousarray(block)
                return block, block
            if stored.dtype == np.float16 and block.flags.c_contiguous:
                _halves(block, stored, rounded, *self._bits[:, : len(block)])
            else:
                np.copyto(stored, block, casting="unsafe")
                np.copyto(rounded, stored)
        return stored, rounded


def _halves(
    block: np.ndarray, stored: np.ndarray, rounded: np.ndarray, work: np.ndarray, sign: np.ndarray
) -> None:
    """Write half floats, and what they are in single floats; the last two are overwritten."""
    bits, kept = block.view(np.uint32), rounded.view(np.uint32)
    np.right_shift(bits, 13, out=kept)  # a single float has 13 bits more of its significand
    kept &= 1
    kept += 0xFFF
    kept += bits
    kept &= 0xFFFF_E000

    np.right_shift(kept, 13, out=work)
    work -= (127 - 15) << 10  # another bias of the exponent, which leaves 15 bits, and the sign
    np.right_shift(bits, 16, out=sign)
    sign &= 0x8000
    work |= sign
    np.copyto(stored.view(np.uint16), work, casting="unsafe")  # the lower half of each

    np.bitwise_and(bits, 0x7FFF_FFFF, out=work)
    work -= LEAST
    others = np.flatnonzero(work >= ABOVE - LEAST)
    if len(others):
        few = block.reshape(-1)[others].astype(np.float16)
        stored.reshape(-1)[others] = few
        rounded.reshape(-1)[others] = few.astype(np.float32)
