"""A folder as a store: what machines with one file system share."""

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from glob import escape
from pathlib import Path

from featurestore.errors import ArtifactError
from featurestore.io import atomic
from featurestore.io.objects.store import CHUNK, StoredObject, replaced


class Folder:
    """A folder; keys are paths below it.

    Parameters
    ----------
    root
        Its path.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def list_key(self, key: str) -> Iterator[StoredObject]:
        """Return the file of a key and those below it."""
        return self.list_prefix(key)

    def list_prefix(self, prefix: str) -> Iterator[StoredObject]:
        """Return the files whose paths begin with a prefix."""
        folder, _, start = prefix.rpartition("/")
        for place in sorted(Path(self.root, folder).glob(f"{escape(start)}*")):
            for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
                if path.is_file() and not path.name.startswith("."):
                    yield self._stored(path)

    def _stored(self, path: Path) -> StoredObject:
        stat = path.stat()
        etag = hashlib.sha256(f"{stat.st_ino} {stat.st_size} {stat.st_mtime_ns}".encode())
        key, modified = path.relative_to(self.root).as_posix(), stat.st_mtime
        return StoredObject(self.root, key, etag.hexdigest(), stat.st_size, modified=modified)

    def read(self, stored: StoredObject, start: int, stop: int) -> Iterator[bytes]:
        """Yield some bytes of a file, refusing one of another content."""
        path = Path(self.root, stored.key)
        if self._stored(path) != stored:
            raise replaced(stored.uri)
        with path.open("rb") as file:
            file.seek(start)
            while start < stop and (chunk := file.read(min(CHUNK, stop - start))):
                start += len(chunk)
                yield chunk

    def is_whole(self, stored: StoredObject, file: Path) -> bool:
        """Return True: a file system says no more of a file's content than its size."""
        return True

    def write(self, key: str, file: Path, once: bool) -> None:
        """Write a file; with ``once`` one that is there already stays."""
        path = Path(self.root, key)
        if once and path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".building-{path.name}-{secrets.token_hex(4)}")
        try:
            shutil.copyfile(file, fresh)
            atomic.publish(fresh, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(fresh)  # noqa: PTH108 - it is there only after a failure

    def remove(self, stored: StoredObject) -> None:
        """Remove a file, and the folders that are left empty; one that is gone is no error."""
        path = Path(self.root, stored.key)
        path.unlink(missing_ok=True)
        for parent in path.relative_to(self.root).parents:
            with suppress(OSError):  # not empty
                Path(self.root, parent).rmdir()

    @staticmethod
    def refusal(uri: str, error: Exception) -> ArtifactError | None:
        """Return None: what the system says is translated as it is."""
        return None
