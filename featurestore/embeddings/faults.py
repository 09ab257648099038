"""What is wrong with embeddings, in short: how many rows, and the first of them by its key.

It is what one file, or one machine, tells of millions of rows.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from featurestore.contract.violation import Violation, key_text
from featurestore.errors import EmbeddingError
from featurestore.spec.literals import Storage
from featurestore.views.folds import KEY

Key = tuple[object, ...]
Kind = Literal["length", "value"]


@dataclass(frozen=True)
class Fault:
    """Rows that no part may hold.

    Parameters
    ----------
    kind
        Of another ``length`` than asked for, or with a ``value`` that is not finite.
    rows
        How many.
    first
        The key of the first of them.
    length
        The length of its embedding.
    """

    kind: Kind
    rows: int
    first: Key
    length: int

    @classmethod
    def of(cls, kind: Kind, keys: pa.Table, lengths: pa.Array) -> "Fault":
        """Return the fault of some rows, by their keys and the lengths of their embeddings."""
        rows = keys.select(list(KEY)).append_column("length", lengths)
        first = rows.sort_by([(name, "ascending") for name in KEY]).slice(0, 1).to_pylist()[0]
        return cls(kind, len(rows), tuple(first[name] for name in KEY), first["length"])


def violations(
    faults: Iterable[Fault], dim: int, storage: Storage, rows: int
) -> Iterator[Violation]:
    """Yield what is wrong with the embeddings of several files.

    Parameters
    ----------
    faults
        Those of each file.
    dim
        The length that an embedding must have.
    storage
        The type in which its values must be finite.
    rows
        How many were looked at in all.
    """
    faults = list(faults)
    words: tuple[tuple[Kind, str, str], ...] = (
        (
            "length",
            f"Embeddings are not all of one length ({dim}, as the first one is)",
            "write one embedding of the same model per tile",
        ),
        (
            "value",
            f"Embeddings hold values that are NaN, null or infinite (in {storage})",
            "compute them again, or drop these tiles"
            + ("" if storage == "float32" else ", or set storage=float32"),
        ),
    )
    for kind, wrong, fix in words:
        alike = [fault for fault in faults if fault.kind == kind]
        if alike:
            number = sum(fault.rows for fault in alike)
            first = min(alike, key=lambda fault: [(part is None, part) for part in fault.first])
            evidence = (
                f"{number:,} of {rows:,} rows, the first, of length {first.length}, at "
                + key_text(dict(zip(KEY, first.first, strict=True)))
            )
            yield Violation(wrong, evidence, fix, number, kind=EmbeddingError)
