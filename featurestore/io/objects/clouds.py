"""Google Cloud Storage and Azure, by obstore, which knows both alike.

Accounts, credentials and endpoints come from the environment, as obstore reads them
(``GOOGLE_APPLICATION_CREDENTIALS``, ``AZURE_STORAGE_ACCOUNT_NAME``, ...); none is ever printed.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from featurestore.errors import ArtifactError
from featurestore.io.objects.store import (
    StoredObject,
    missing,
    refused,
    replaced,
    unreachable,
)

RANGE = 2**23  # bytes a request: a slow network brings them before a request is given up
RETRIES = {"max_retries": 4, "retry_timeout": timedelta(seconds=60)}
STATUS = re.compile(r"status code: 4\d\d [\w ]+")  # in obstore's words for any other answer


class Cloud:
    """A bucket or container.

    Parameters
    ----------
    root
        ``gs://bucket``, ``az://container``, ``abfs://container@account.dfs.core.windows.net``.
    """

    def __init__(self, root: str) -> None:
        self.root, scheme = root, root.partition("://")[0]
        azure = scheme != "gs"  # whose containers have names within an account
        self.endpoint = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "") if azure else ""
        try:
            import obstore  # noqa: F401
        except ImportError as error:
            raise missing(root, "obstore", "az" if azure else "gs") from error
        self._client = _client(root)

    def list_key(self, key: str) -> Iterator[StoredObject]:
        """Return the objects below a key; where there is none, that of the key itself.

        Azure has an empty object for a folder, too.
        """
        below = False
        for stored in self._below(key):
            below = True
            yield stored
        if key and not below and not key.endswith("/"):
            with suppress(FileNotFoundError):
                yield self._stored(self._client.head(key))

    def list_prefix(self, prefix: str) -> Iterator[StoredObject]:
        """Return the objects of the folder that a prefix ends in: keys are listed by folders."""
        return self._below(prefix.rpartition("/")[0])

    def _below(self, folder: str) -> Iterator[StoredObject]:
        for page in self._client.list(folder.strip("/") or None):
            yield from map(self._stored, page)

    def _stored(self, entry: Any) -> StoredObject:
        etag = _quoted(entry["e_tag"])
        return StoredObject(
            self.root, entry["path"], etag, entry["size"], entry["version"], self.endpoint,
            entry["last_modified"].timestamp(),
        )  # fmt: skip

    def read(self, stored: StoredObject, start: int, stop: int) -> Iterator[bytes]:
        """Yield some bytes of an object, refusing one of another content."""
        for begin in range(start, stop, RANGE):
            options = {"range": (begin, min(begin + RANGE, stop)), "if_match": stored.etag}
            answer = self._client.get(stored.key, options=options)
            if _quoted(answer.meta["e_tag"]) != stored.etag:  # it passes over the condition
                raise replaced(stored.uri)
            yield bytes(answer.bytes())

    def is_whole(self, stored: StoredObject, file: Path) -> bool:
        """Return True: each range was read of the same ETag, and the size has been compared."""
        return True

    def write(self, key: str, file: Path, once: bool) -> None:
        """Write an object; with ``once`` one that is there already stays."""
        from obstore.exceptions import AlreadyExistsError

        with suppress(AlreadyExistsError):
            self._client.put(key, file, mode="create" if once else "overwrite")

    def remove(self, stored: StoredObject) -> None:
        """Remove an object; one that is gone already is no error."""
        with suppress(FileNotFoundError):
            self._client.delete(stored.key)

    @staticmethod
    def refusal(uri: str, error: Exception) -> ArtifactError | None:
        """Return what obstore's error says, without its text."""
        from obstore import exceptions

        if isinstance(error, exceptions.PreconditionError):
            return replaced(uri)
        if isinstance(error, (exceptions.NotFoundError, FileNotFoundError)):
            return refused(uri, "no such bucket or object")
        if isinstance(
            error,
            (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError),
        ):
            return refused(uri, type(error).__name__)
        if isinstance(error, exceptions.BaseError):
            status = STATUS.search(str(error))
            return refused(uri, status[0]) if status else unreachable(uri, error)
        return None


def _quoted(etag: str | None) -> str:
    """Return an ETag as a condition spells it: in a listing of Azure it lacks its marks."""
    return '"{}"'.format((etag or "").strip('"'))


def _client(root: str) -> Any:
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    try:
        return from_url(root, client_options={"allow_http": True}, retry_config=RETRIES)
    except (BaseError, ValueError) as error:  # whose text may quote what it was given
        raise ArtifactError(
            f"{root} cannot be opened",
            found="no bucket by that name, no account, or credentials that cannot be read",
            fix="write gs://bucket/key or az://container/key; Azure wants "
            "AZURE_STORAGE_ACCOUNT_NAME, or abfs://container@account.dfs.core.windows.net/key",
        ) from error
