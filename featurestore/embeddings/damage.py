"""Which parts are damaged: what is remembered of their files is believed, else they are read."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.embeddings.layout import BLOCK_BYTES, HEADER_BYTES, hash_weights
from featurestore.embeddings.part import Part, content_of, is_shared, row_hashes, seen
from featurestore.io import digests
from featurestore.views.folds import KEY


def damages(parts: Iterable[Part], wholly: bool = False) -> dict[str, str]:
    """Return what is wrong with some parts, in words, by their names.

    A part whose files are those that were written, or were compared since, is believed.

    Parameters
    ----------
    wholly
        Whether every byte is read, whatever is remembered.
    """
    identities = {part: seen(part) for part in parts}
    wrong = {
        part.name: fault
        for part, fault in identities.items()
        if isinstance(fault, str) and (part.values.exists() or not is_shared(part.name))
    }
    present = {part: one for part, one in identities.items() if not isinstance(one, str)}
    recorded = {} if wholly else digests.known(one for both in present.values() for one in both)
    doubtful = [
        part
        for part, both in present.items()
        if any(recorded.get(one) != part.when_whole for one in both)
    ]
    for part in doubtful:
        if fault := damage(part):
            wrong[part.name] = fault
    remember(part for part in doubtful if part.name not in wrong)
    return wrong


def remember(parts: Iterable[Part]) -> None:
    """Remember, for other processes as well, that the files of some parts hold them.

    What another machine has made, and is not here yet, is compared when it comes.
    """
    here = [part for part in parts if not isinstance(seen(part), str)]
    named = {file: part.when_whole for part in here for file in (part.keys, part.values)}
    digests.remember(named)


def damage(part: Part, values: Path | None = None, keys: Path | None = None) -> str | None:
    """Read a whole part and return what is wrong with it, in words, if anything is.

    Its rows are compared with the digests that were taken while they were written.

    Parameters
    ----------
    values, keys
        Where its files are, if not where they belong.
    """
    if values is None or keys is None:
        if isinstance(wrong := seen(part), str):
            return wrong
        values, keys = part.values, part.keys
    with values.open("rb") as stream:
        header = stream.read(HEADER_BYTES)
        stream.seek(part.seal_offset)
        seal = stream.read()
    if header != part.header:
        return f"{part.values.name} has another header than what was written"
    if digests.sha256(keys) != seal.hex():
        return f"{part.keys.name} has another SHA-256 than what was written"
    try:
        table = pq.read_table(keys, columns=[*KEY, "stored"])
        if content_of(table) != part.content or Part.read(part.name, keys) != part:
            return f"{part.keys.name} holds other keys than those asked for"
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        return f"{part.keys.name} cannot be read: {str(error).splitlines()[0]}"
    expected = table["stored"].to_numpy()
    weights, size = hash_weights(part.dim), max(1, BLOCK_BYTES // part.row_bytes)

    def look(start: int) -> int:
        block = part.mapped(start, min(start + size, part.rows), values)
        return int((row_hashes(block, weights) != expected[start : start + size]).sum())

    with ThreadPoolExecutor() as pool:
        rows = sum(pool.map(look, range(0, part.rows, size)))
    return f"{part.values.name} has {rows:,} rows that are not what was written" if rows else None
