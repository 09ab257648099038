"""A tracking server over HTTP: whether it answers, how long it is waited for, when it is lost."""

import logging
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from featurestore.errors import FeatureStoreError, TrackingError

SECONDS = 5.0  # for a first answer

PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "6",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
}
"""MLflow's settings where the user has none: a server that refuses connections is asked again after
0, 2, 4, 8, 16 and 32 seconds. It may restart meanwhile; a job that it left for good ends after a
minute, not after four."""


def over_http(uri: str) -> bool:
    """Return whether a tracking URI is that of a server."""
    return urlsplit(uri).scheme in ("http", "https")


def be_patient() -> None:
    """Set how long MLflow waits; its retries are counted by it, not told one by one."""
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


@contextmanager
def impatient() -> Iterator[None]:
    """Ask a server once, and briefly, in the block."""
    brief = dict(zip(PATIENCE, ("0", "0", str(int(SECONDS))), strict=True))
    before = {name: os.environ.get(name) for name in brief}
    os.environ.update(brief)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def check(uri: str) -> None:
    """Make sure that a server answers.

    Raises
    ------
    TrackingError
        It does not within five seconds.
    """
    if found := silence(uri):
        raise TrackingError(
            f"The MLflow tracking server at {uri} does not answer",
            found=found,
            fix="start it (mlflow server), correct MLFLOW_TRACKING_URI or tracking.uri, "
            "or set tracking.enabled=false",
        )


def silence(uri: str) -> str | None:
    """Return why a server does not answer; None if it does."""
    try:
        urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=SECONDS).close()
    except urllib.error.HTTPError:
        return None  # an answer, if not a friendly one: MLflow's own errors are the better ones
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
    return None


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """Turn whatever MLflow raises when its server is lost into one error.

    Raises
    ------
    TrackingError
        The server stopped answering in the block.
    """
    try:
        yield
    except FeatureStoreError:
        raise
    except Exception as error:
        # Downloads run in threads, whose causes MLflow keeps as text alone.
        found = lost(error) or (silence(uri) if over_http(uri) else None)
        if found is None:
            raise
        raise TrackingError(
            f"The MLflow tracking server at {uri} stopped answering",
            found=found,
            fix="start it again, then run the same command",
        ) from error


def lost(error: BaseException) -> str | None:
    """Return what went wrong with the connection, if that is why something was raised."""
    from requests import exceptions  # with MLflow, which raises them

    broken = (
        exceptions.ConnectionError, exceptions.Timeout, exceptions.RetryError,
        exceptions.ChunkedEncodingError,
    )  # fmt: skip
    one: BaseException | None = error
    while one is not None:
        status = getattr(getattr(one, "response", None), "status_code", 0)
        if isinstance(one, broken) or (isinstance(one, exceptions.HTTPError) and status >= 500):
            reason = getattr(one.args[0] if one.args else one, "reason", one)
            return str(reason).splitlines()[0].rpartition("): ")[2]
        one = one.__cause__ or one.__context__
    return None
