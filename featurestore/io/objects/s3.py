"""S3, and what speaks like it. Credentials, region and endpoint come from the environment as boto3
reads them (and from MLFLOW_S3_ENDPOINT_URL); none is ever printed. boto3 retries by itself.
"""

import hashlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from featurestore.errors import ArtifactError
from featurestore.io.objects.store import (
    CHUNK,
    StoredObject,
    missing,
    refused,
    replaced,
    translated,
    unreachable,
)

CONNECTIONS = 16
OWN = (".amazonaws.com", ".amazonaws.com.cn")  # whose buckets have one name in the world
THERE = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409")
"""What a store answers that is asked to write only what is not there yet."""


class S3:
    """A bucket of S3.

    Parameters
    ----------
    root
        ``s3://bucket``.
    """

    def __init__(self, root: str) -> None:
        self.root, self.bucket = root, root.partition("://")[2]
        try:
            import boto3  # noqa: F401
        except ImportError as error:
            raise missing(root, "boto3", "s3") from error
        with translated(root, self.refusal):
            self._client = _client()
        place = urlsplit(self._client.meta.endpoint_url)
        host = place.hostname or ""
        self.endpoint = "" if host.endswith(OWN) else f"{host}:{place.port}"

    def list_key(self, key: str) -> Iterator[StoredObject]:
        """Return the object of a key and those below it, and others that begin alike."""
        return self.list_prefix(key)

    def list_prefix(self, prefix: str) -> Iterator[StoredObject]:
        """Return the objects whose keys begin with a prefix, page by page."""
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self.bucket, Prefix=prefix):
            for entry in page.get("Contents", []):
                yield StoredObject(
                    self.root, entry["Key"], entry["ETag"], entry["Size"],
                    endpoint=self.endpoint, modified=entry["LastModified"].timestamp(),
                )  # fmt: skip

    def read(self, stored: StoredObject, start: int, stop: int) -> Iterator[bytes]:
        """Yield some bytes of an object, refusing one of another content."""
        if start >= stop:  # of an empty object no range can be asked
            return
        wanted = {"Bucket": self.bucket, "Key": stored.key, "IfMatch": stored.etag}
        if (start, stop) != (0, stored.size):
            wanted["Range"] = f"bytes={start}-{stop - 1}"
        yield from self._client.get_object(**wanted)["Body"].iter_chunks(CHUNK)

    def is_whole(self, stored: StoredObject, file: Path) -> bool:
        """Compare with the ETag where that is an MD5, of the whole or of the parts of an upload."""
        digest, _, parts = stored.etag.strip('"').partition("-")
        named = {"Bucket": self.bucket, "Key": stored.key}
        if len(digest) != 32:
            return True  # not an MD5 then; the size has been compared
        if parts:
            size = self._client.head_object(**named, PartNumber=1)["ContentLength"]
            whole = hashlib.md5(b"".join(_md5(file, size)), usedforsecurity=False).hexdigest()
        else:
            whole = _md5(file, stored.size)[0].hex()
        # The ETag of what AWS encrypts by a key of its customer's looks like an MD5 and is none.
        return whole == digest or "kms" in self._client.head_object(**named).get(
            "ServerSideEncryption", ""
        )

    def write(self, key: str, file: Path, once: bool) -> None:
        """Write an object; with ``once`` one that is there already stays."""
        from botocore.exceptions import ClientError

        if not once:  # in several parts where it is large
            self._client.upload_file(str(file), self.bucket, key)
            return
        try:
            with file.open("rb") as body:
                self._client.put_object(Bucket=self.bucket, Key=key, Body=body, IfNoneMatch="*")
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") not in THERE:
                raise

    def remove(self, stored: StoredObject) -> None:
        """Remove an object; one that is gone already is no error."""
        self._client.delete_object(Bucket=self.bucket, Key=stored.key)

    @staticmethod
    def refusal(uri: str, error: Exception) -> ArtifactError | None:
        """Return what boto3's error says, without its text."""
        from botocore.exceptions import BotoCoreError, ClientError
        from urllib3.exceptions import HTTPError

        if isinstance(error, ClientError):
            answer = error.response.get("Error", {})
            code, status = answer.get("Code", "unknown"), error.response.get("ResponseMetadata", {})
            if code in ("PreconditionFailed", "412"):
                return replaced(uri)
            return refused(uri, f"{code} (status {status.get('HTTPStatusCode', '?')})")
        if isinstance(error, (BotoCoreError, HTTPError)):
            return unreachable(uri, error)
        return None


def _client() -> Any:
    import boto3
    from botocore.config import Config
    from botocore.session import get_session

    session = get_session()
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    try:
        return boto3.Session(botocore_session=session).client(
            "s3",
            endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL"),
            config=Config(retries={"mode": "standard"}, max_pool_connections=CONNECTIONS),
        )
    except ValueError as error:
        raise ArtifactError(
            "AWS_ENDPOINT_URL or MLFLOW_S3_ENDPOINT_URL is no address",
            found="neither http:// nor https:// with a host",  # its text may hold a password
            fix="correct it, or unset it for AWS's own",
        ) from error


@cache
def _loader(folders: str | None) -> Any:
    """Return what reads the descriptions of AWS's services, a megabyte of JSON, once a process."""
    from botocore.loaders import create_loader

    return create_loader(folders)


def _md5(file: Path, size: int) -> list[bytes]:
    """Return the MD5 of each ``size`` bytes of a file."""
    digests: list[bytes] = []
    with file.open("rb") as stream:
        while True:
            digest, left = hashlib.md5(usedforsecurity=False), size
            while left and (chunk := stream.read(min(CHUNK, left))):
                digest.update(chunk)
                left -= len(chunk)
            if left == size and digests:
                return digests
            digests.append(digest.digest())
            if left:
                return digests
