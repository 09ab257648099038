"""Object storage: what ``s3://`` URIs name, downloaded once for each content, verified, and gone on
with after a cut.

The one file that talks to S3. Credentials, region and endpoint come from the environment as boto3
reads them (and from MLFLOW_S3_ENDPOINT_URL); none is ever printed. boto3 retries by itself.
"""

import fnmatch
import hashlib
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurestore.errors import ArtifactError
from featurestore.io import downloads

CHUNK = 2**20
AT_ONCE = 8  # objects
MAGIC = "*?["


@dataclass(frozen=True)
class Stored:
    """An object: its key, and what the bucket says of its content."""

    bucket: str
    key: str
    etag: str
    size: int
    modified: str


def fetched(uri: str) -> Path:
    """Return where the objects behind an ``s3://`` URI lie on this machine.

    What the bucket says of the content tells a download from another: a changed object is another
    one, unchanged ones cost a listing. Processes that ask at once share one download; one that was
    cut goes on where it ended.

    Parameters
    ----------
    uri
        ``s3://bucket/key`` of an object, a prefix or a glob.

    Returns
    -------
    Path
        A file, where the URI names one object; else a folder with the objects' relative names.

    Raises
    ------
    ArtifactError
        There is no such object, the storage refuses or does not answer, a download is not what the
        bucket says, or the disk is full.
    """
    # Not parsed as a URI: keys may hold ? and #.
    bucket, _, key = uri.partition("://")[2].partition("/")
    key, client = key.lstrip("/"), _client()
    with _translated(uri):
        objects = _listed(client, bucket, key)
    if not objects:
        raise ArtifactError(
            f"There is no object at {uri}",
            found=f"nothing in bucket {bucket} by that key, prefix or glob",
            fix="correct the URI: s3://bucket/file.parquet, s3://bucket/folder or a glob",
        )
    base = _base(key, objects)
    lines = [f"{o.bucket}/{o.key} {o.etag} {o.size} {o.modified}" for o in objects]

    def fill(folder: Path) -> None:
        with _translated(uri):
            _download(client, objects, base, folder)

    folder = downloads.kept("\n".join([base, *lines]), fill)
    return folder / Path(key).name if [o.key for o in objects] == [key] else folder


def _client() -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise ArtifactError(
            "s3:// URIs need boto3", found=str(error), fix="pip install 'tissue-probe[s3]'"
        ) from error
    return boto3.Session().client(
        "s3",
        endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL"),
        config=Config(retries={"mode": "standard"}, max_pool_connections=AT_ONCE),
    )


def _stored(bucket: str, entry: dict[str, Any]) -> Stored:
    etag, modified = entry["ETag"].strip('"'), entry["LastModified"].isoformat()
    return Stored(bucket, entry["Key"], etag, entry["Size"], modified)


def _listed(client: Any, bucket: str, key: str) -> list[Stored]:
    """Return the one object of that key, else those below the prefix or matching the glob."""
    glob = any(sign in key for sign in MAGIC)
    prefix = key[: min(key.find(s) for s in MAGIC if s in key)] if glob else key
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    objects = [
        _stored(bucket, entry)
        for page in pages
        for entry in page.get("Contents", [])
        if not entry["Key"].endswith("/")
    ]
    if glob:
        return [stored for stored in objects if fnmatch.fnmatchcase(stored.key, key)]
    exact = [stored for stored in objects if stored.key == key]
    below = key if key.endswith("/") or not key else key + "/"
    return exact or [stored for stored in objects if stored.key.startswith(below)]


def _base(key: str, objects: list[Stored]) -> str:
    """Return the part of the keys that local names leave out."""
    if [stored.key for stored in objects] == [key]:
        return key.rpartition("/")[0]
    fixed = key[: min((key.find(s) for s in MAGIC if s in key), default=len(key))]
    return fixed.rpartition("/")[0] if fixed != key else key.rstrip("/")


def _download(client: Any, objects: list[Stored], base: str, folder: Path) -> None:
    def fetch(stored: Stored) -> None:
        path = folder / stored.key.removeprefix(base).lstrip("/")
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ArtifactError(
                "An object's key leads out of its folder",
                found=stored.key,
                fix="rename the object",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch(client, stored, path)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(fetch, stored) for stored in objects]:
            done.result()


def _fetch(client: Any, stored: Stored, path: Path) -> None:
    """Bring one object, from the byte that is not here yet, and verify the whole."""
    begun = path.stat().st_size if path.exists() else 0
    if begun < stored.size or not path.exists():
        wanted = {"Bucket": stored.bucket, "Key": stored.key, "IfMatch": stored.etag}
        if begun:
            wanted["Range"] = f"bytes={begun}-"
        body = client.get_object(**wanted)["Body"]
        with path.open("ab") as file:
            for chunk in body.iter_chunks(CHUNK):
                file.write(chunk)
    if path.stat().st_size != stored.size or not _is_whole(client, stored, path):
        path.unlink()
        raise ArtifactError(
            f"The download of s3://{stored.bucket}/{stored.key} is not what the bucket says",
            found="another size or checksum",
            fix="run again: it will be fetched from its first byte",
        )


def _is_whole(client: Any, stored: Stored, path: Path) -> bool:
    """Compare with the ETag where that is an MD5, of the whole or of the parts of an upload."""
    digest, _, parts = stored.etag.partition("-")
    named = {"Bucket": stored.bucket, "Key": stored.key}
    if client.head_object(**named).get("ServerSideEncryption") == "aws:kms" or len(digest) != 32:
        return True  # not an MD5 then; the size has been compared
    if not parts:
        return _md5(path, stored.size)[0].hex() == digest
    size = client.head_object(**named, PartNumber=1)["ContentLength"]
    return hashlib.md5(b"".join(_md5(path, size)), usedforsecurity=False).hexdigest() == digest


def _md5(path: Path, size: int) -> list[bytes]:
    """Return the MD5 of each ``size`` bytes of a file."""
    digests: list[bytes] = []
    with path.open("rb") as file:
        while True:
            digest, left = hashlib.md5(usedforsecurity=False), size
            while left and (chunk := file.read(min(CHUNK, left))):
                digest.update(chunk)
                left -= len(chunk)
            if left == size and digests:
                return digests
            digests.append(digest.digest())
            if left:
                return digests


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """Turn what boto3 and the system say into a refusal without any credential in it."""
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        answer = error.response.get("Error", {})
        code, status = answer.get("Code", "unknown"), error.response.get("ResponseMetadata", {})
        if code in ("PreconditionFailed", "412"):
            raise ArtifactError(
                f"{uri} was replaced while it was downloaded",
                found="another ETag than in the listing before",
                fix="run again, once nobody writes there",
            ) from error
        raise ArtifactError(
            f"The object storage refuses {uri}",
            found=f"{code} (status {status.get('HTTPStatusCode', '?')})",
            fix="check the bucket, the key, and the credentials in the environment",
        ) from error
    except (BotoCoreError, HTTPError) as error:
        raise ArtifactError(
            f"{uri} cannot be reached",
            found=type(error).__name__,
            fix="check AWS_ENDPOINT_URL or MLFLOW_S3_ENDPOINT_URL, the credentials in the "
            "environment and the network; what was downloaded is kept",
        ) from error
    except OSError as error:
        free = shutil.disk_usage(Path.cwd()).free
        raise ArtifactError(
            f"{uri} could not be written to this machine",
            found=f"{error.strerror or error}; {free / 1e9:.1f} GB free",
            fix="make room, then run again: the download goes on where it ended",
        ) from error
