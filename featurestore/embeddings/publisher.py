"""Parts that are written get their names: many at a time, once the disk has all of them.

To have the disk take a small file costs more than to write it, and it takes many at once for less.
Until then they lie in a folder of their own, which nobody believes.
"""

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from featurestore.embeddings.layout import KEYS, VALUES
from featurestore.embeddings.part import Part
from featurestore.io import atomic, digests

AT_ONCE = 500  # parts that wait for their names: what a cut costs
BYTES_AT_ONCE = 2**30


class Publisher:
    """Gives parts their names. Threads may share it.

    Parameters
    ----------
    folder
        Where they are written.
    named
        Told of each part that has its name.
    """

    def __init__(self, folder: Path, named: Callable[[Part], object]) -> None:
        self.folder, self._named = folder, named
        self._waiting: list[tuple[Part, Path]] = []
        self._bytes = 0
        self._lock = Lock()

    def place(self) -> Path:
        """Return where to write the embeddings of a part, and under another suffix its keys."""
        return self.folder / f"{secrets.token_hex(8)}{VALUES}"

    def add(self, part: Part, values: Path) -> None:
        """Take a part that is written, to be named now or with others."""
        with self._lock:
            self._waiting.append((part, values))
            self._bytes += part.values_bytes
            is_full = len(self._waiting) >= AT_ONCE or self._bytes >= BYTES_AT_ONCE
        if is_full:
            self.publish()

    def publish(self) -> None:
        """Give those that wait their names, the keys last."""
        with self._lock:
            batch, self._waiting, self._bytes = self._waiting, [], 0
        files = [file for _, values in batch for file in (values, values.with_suffix(KEYS))]
        with ThreadPoolExecutor(atomic.SYNCS) as pool:
            list(pool.map(atomic.sync, files))
        for part, values in batch:
            values.replace(part.values)
            values.with_suffix(KEYS).replace(part.keys)
            digests.remember_here(dict.fromkeys((part.keys, part.values), part.when_whole))
            self._named(part)
