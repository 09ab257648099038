"""What is known of an object before it is read, and what a store must do here."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Protocol

from featurestore.errors import ArtifactError

CHUNK = 2**20  # bytes that are read at once
OBJECTS, OUTLINES = "objects", "outlines"
"""What of an object lies on this machine: all of it, or all but its lists of numbers."""
RECORD = "object.json"
"""What the store says of an object, beside what was fetched of it."""
NAME = "object"  # of the file in its folder: a key may be longer than the name of a file
LINK = re.compile(rf"(?:.*/)?({OBJECTS}|{OUTLINES})/([0-9a-f]+)/{NAME}")


@dataclass(frozen=True)
class StoredObject:
    """An object with one content: all that another process or machine needs to read it.

    Parameters
    ----------
    root
        Scheme and bucket: ``s3://bucket``.
    key
        As the store spells it.
    etag
        What the store says of the content.
    size
        Bytes.
    version
        Where a listing tells versions apart.
    endpoint
        Who answers for the bucket, where its name alone does not say it.
    modified
        When it was written, in seconds of the epoch.
    """

    root: str
    key: str
    etag: str
    size: int
    version: str | None = None
    endpoint: str = ""
    modified: float = field(default=0.0, compare=False)

    @property
    def uri(self) -> str:
        """Its URI, with the key as it is: not percent-encoded."""
        return f"{self.root}/{self.key}"

    @property
    def digest(self) -> str:
        """SHA-256 of all this: what the object is kept under."""
        return self.having()

    def having(self, *more: str) -> str:
        """Return the SHA-256 of all this and of what was made of it."""
        content = tuple(getattr(self, one.name) for one in fields(self) if one.compare)
        return hashlib.sha256(repr((content, *more)).encode()).hexdigest()


def entry_of(file: Path) -> tuple[str, str] | None:
    """Return the kind and the name of the entry of the cache that a file of an artifact links to.

    None where the file is no link to an object.
    """
    try:
        link = LINK.fullmatch(os.readlink(file))  # noqa: PTH115 - of thousands of files
    except OSError:  # no link
        return None
    return (link[1], link[2]) if link else None


def object_behind(file: Path) -> StoredObject | None:
    """Return the object that a file of an artifact, or its outline, was fetched from.

    None where the file is no object, or was fetched before that was written beside it.
    """
    if entry_of(file) is None:
        return None
    record = file.resolve().parent / RECORD
    return StoredObject(**json.loads(record.read_bytes())["object"]) if record.exists() else None


class Store(Protocol):
    """A bucket, with a connection of its own. Threads may share it."""

    root: str

    def list_key(self, key: str) -> Iterable[StoredObject]:
        """Return the object of a key and those below it, and maybe others."""

    def list_prefix(self, prefix: str) -> Iterable[StoredObject]:
        """Return the objects whose keys begin with a prefix, and maybe others."""

    def read(self, stored: StoredObject, start: int, stop: int) -> Iterator[bytes]:
        """Yield some bytes of an object, refusing one of another content."""

    def is_whole(self, stored: StoredObject, file: Path) -> bool:
        """Return whether a file of the right size is what the store has, as far as it says."""

    def write(self, key: str, file: Path, once: bool) -> None:
        """Write an object; with ``once`` one that is there already stays."""

    def remove(self, stored: StoredObject) -> None:
        """Remove an object; one that is gone already is no error."""

    def refusal(self, uri: str, error: Exception) -> ArtifactError | None:
        """Return what an error of the library below says; None for another's error."""


Refusal = Callable[[str, Exception], ArtifactError | None]


@contextmanager
def translated(uri: str, refusal: Refusal) -> Iterator[None]:
    """Turn what a store's library and the system raise into refusals without a credential in them.

    Parameters
    ----------
    refusal
        Of the store, see `Store`.
    """
    try:
        yield
    except ArtifactError:
        raise
    except Exception as error:
        translation = refusal(uri, error)
        if translation is None and isinstance(error, (ConnectionError, TimeoutError)):
            translation = unreachable(uri, error)
        if translation is None and isinstance(error, OSError):
            translation = _unwritable(uri, error)
        if translation is None:
            raise
        raise translation from error


def replaced(uri: str) -> ArtifactError:
    """Return the refusal of an object that is no more what the listing said."""
    return ArtifactError(
        f"{uri} was replaced while it was downloaded",
        found="another ETag than in the listing before",
        fix="run again, once nobody writes there",
    )


def unreachable(uri: str, error: Exception) -> ArtifactError:
    """Return the refusal of a store that does not answer; the library's words may hold secrets."""
    return ArtifactError(
        f"{uri} cannot be reached",
        found=type(error).__name__,
        fix="check the network, and endpoint and credentials in the environment (for s3:// "
        "AWS_ENDPOINT_URL or MLFLOW_S3_ENDPOINT_URL); what was downloaded is kept",
    )


def refused(uri: str, reason: str) -> ArtifactError:
    """Return the refusal of what the store itself refuses."""
    return ArtifactError(
        f"The object storage refuses {uri}",
        found=reason,
        fix="check the bucket, the key, and the credentials in the environment",
    )


def missing(uri: str, library: str, extra: str) -> ArtifactError:
    """Return the refusal where the library of a scheme is not installed."""
    return ArtifactError(
        f"{uri} needs {library}",
        found=f"{library} is not installed",
        fix=f"pip install 'tissue-probe[{extra}]'",
    )


def _unwritable(uri: str, error: OSError) -> ArtifactError:
    free = shutil.disk_usage(Path.cwd()).free
    return ArtifactError(
        f"{uri} could not be written to this machine",
        found=f"{error.strerror or error}; {free / 1e9:.1f} GB free",
        fix="make room, then run again: the download goes on where it ended",
    )
