"""Digests of files that were read before, in a sqlite file that processes share.

It saves time and decides nothing: where it is damaged, foreign or cannot be written, files are
hashed again. Each entry has a checksum of its own, for a flipped byte makes another digest.
"""

import hashlib
import json
import os
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from featurestore.errors import FeatureStoreWarning
from featurestore.io.atomic import HOME

T = TypeVar("T")

FILE = "digests.db"
TABLE = """
create table if not exists hashed (
    identity text primary key,
    path blob not null,
    sha256 text not null,
    checksum text not null
)
"""
BY_PATH = "create index if not exists by_path on hashed (path)"
QUERY = """
select identity, path, sha256, checksum
from hashed
where identity in (select value from json_each(?))
"""
PATIENCE = 10.0  # seconds to wait for other writers
OBJECT = -1  # in place of the number of a device


class Identity(NamedTuple):
    """What a file system says of a file; no program can set ``ctime``.

    Times are nanoseconds of the epoch, ``size`` is bytes. Of an object, ``inode`` is a digest of
    what its store says of its content, and the times are 0.
    """

    device: int
    inode: int
    size: int
    mtime: int
    ctime: int

    @classmethod
    def of(cls, stat: os.stat_result) -> "Identity":
        """Pick it out of what the system says of a file."""
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)

    @classmethod
    def of_object(cls, name: str, size: int) -> "Identity":
        """Return that of an object by the name, in hexadecimal digits, that the cache gives it."""
        return cls(OBJECT, int(name, 16), size, 0, 0)

    @property
    def is_object(self) -> bool:
        """Whether it is that of an object of a store."""
        return self.device == OBJECT

    @property
    def wherever(self) -> str:
        """The same on all machines that share a disk, where devices are numbered otherwise."""
        return "|".join(map(str, self[1:]))

    def __str__(self) -> str:
        return "|".join(map(str, self))


def load(identities: Iterable[Identity]) -> dict[Identity, str]:
    """Return the SHA-256 of those files that are in the cache, by their identities."""
    by_text = {str(identity): identity for identity in identities}

    def ask(connection: sqlite3.Connection) -> dict[Identity, str]:
        rows = connection.execute(QUERY, [json.dumps([*by_text])])
        return {
            by_text[text]: str(sha256)
            for text, path, sha256, checksum in rows
            if checksum == _checksum(by_text[text], path, sha256)
        }

    return _use("ro", ask) or {}


def save(sums: Mapping[Path, tuple[Identity, str]]) -> None:
    """Save the SHA-256 of some files, in place of entries with the same paths."""
    recorded, rows = load(identity for identity, _ in sums.values()), []
    for file, (one, sha256) in sums.items():
        if recorded.get(one) != sha256:
            path = os.fsencode(file.resolve())
            rows.append((str(one), path, sha256, _checksum(one, path, sha256)))
    if not rows:
        return

    def insert(connection: sqlite3.Connection) -> None:
        connection.execute(TABLE)
        connection.execute(BY_PATH)
        connection.executemany("delete from hashed where path = ?", [row[1:2] for row in rows])
        connection.executemany("insert or replace into hashed values (?, ?, ?, ?)", rows)

    with suppress(OSError):  # a reader may not be allowed to write
        HOME.mkdir(exist_ok=True)
        (HOME / FILE).open("ab").close()  # sqlite itself would keep a group from writing
    _use("rw", insert)


def exists() -> bool:
    """Return whether anything was ever saved here."""
    return (HOME / FILE).exists()


def remove() -> None:
    """Remove the cache, and its folder if that is empty: files are hashed again."""
    (HOME / FILE).unlink(missing_ok=True)
    with suppress(OSError):  # not empty
        HOME.rmdir()


def drop_stale() -> int:
    """Drop the entries of files that are gone or were changed; return how many.

    Those of objects stay: their content never changes, and to ask for it again is dear.
    """

    def drop(connection: sqlite3.Connection) -> int:
        rows = connection.execute("select identity, path from hashed").fetchall()
        kept = f"{OBJECT}|"
        gone = [(key,) for key, path in rows if not key.startswith(kept) and _now(path) != key]
        connection.executemany("delete from hashed where identity = ?", gone)
        return len(gone)

    return _use("rw", drop) or 0


def _now(path: bytes) -> str | None:
    try:
        return str(Identity.of(os.stat(path)))  # noqa: PTH116 - no Path takes bytes
    except OSError:
        return None


def _checksum(one: Identity, path: bytes, sha256: str) -> str:
    return hashlib.sha256(f"{one} {sha256} ".encode() + path).hexdigest()[:16]


def _use(mode: str, work: Callable[[sqlite3.Connection], T]) -> T | None:
    """Do some work in one transaction; None where the file cannot be used.

    What is no such file is set aside.
    """
    file = HOME / FILE
    if not file.exists():
        return None
    try:
        uri = f"{file.absolute().as_uri()}?mode={mode}"
        with closing(sqlite3.connect(uri, uri=True, timeout=PATIENCE)) as connection, connection:
            connection.text_factory = lambda text: text.decode(errors="replace")
            return work(connection)
    except sqlite3.OperationalError:  # locked, read-only, on a disk without locks, or empty
        return None
    except sqlite3.DatabaseError as error:
        aside = file.with_name(f".broken-{file.name}-{time.time_ns()}")
        with suppress(OSError):
            file.rename(aside)
        warnings.warn(
            f"{file} is damaged ({error}): it is set aside as {aside.name}, and files are hashed "
            "again",
            FeatureStoreWarning,
            stacklevel=2,
        )
        return None
