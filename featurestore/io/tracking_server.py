"""A tracking server over HTTP: whether it answers, how long it is waited for, when it is lost."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit, urlunsplit

from featurestore.errors import FeatureStoreError, TrackingError
from featurestore.io import refusals

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


def signed_in(uri: str) -> str:
    """Return a server's URI without the user and password in it, which MLflow gets by environment.

    It sends them all the same, and no message, artifact URI or process list can show them.
    """
    parts = urlsplit(uri)
    if not over_http(uri) or "@" not in parts.netloc:
        return uri
    given, _, host = parts.netloc.rpartition("@")
    user, _, password = given.partition(":")
    named = {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
    os.environ.update({name: unquote(value) for name, value in named.items() if value})
    return urlunsplit(parts._replace(netloc=host))


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
    if problem := silence(uri):
        raise TrackingError(
            f"The MLflow tracking server at {uri} does not answer",
            found=problem,
            fix="start it (mlflow server), correct MLFLOW_TRACKING_URI or tracking.uri, "
            "or set tracking.enabled=false",
        )


def silence(uri: str) -> str | None:
    """Return why a server does not answer; None if it does."""
    import requests  # with MLflow, which trusts a server by the same settings

    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
    trusted = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or not insecure
    try:
        health = uri.rstrip("/") + "/health"
        requests.get(health, timeout=SECONDS, verify=trusted, allow_redirects=False).close()
    except (OSError, ValueError) as error:  # any answer will do, be it none of MLflow's
        return reason(error)
    return None


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """Turn what is raised when a server is lost, or bars whoever asks, into one error.

    Raises
    ------
    TrackingError
        The server stopped answering in the block, or nothing at all can be asked of it.
    """
    try:
        yield
    except FeatureStoreError:
        raise
    except Exception as error:
        # Downloads run in threads, whose causes MLflow keeps as text alone.
        problem = lost(error) or (silence(uri) if over_http(uri) else None)
        if problem:
            raise TrackingError(
                f"The MLflow tracking server at {uri} stopped answering",
                found=problem,
                fix=f"start the server{refusals.AGAIN}",
            ) from error
        if barred := refusals.barred(error, uri):
            raise barred from error
        raise


@contextmanager
def translated(
    uri: str, wrong: str, kind: type[FeatureStoreError] = TrackingError, fix: str = ""
) -> Iterator[None]:
    """Turn whatever MLflow raises into one error that says what could not be done.

    Parameters
    ----------
    uri
        The tracking URI.
    wrong, kind, fix
        The error, where the server answers and lets us in.

    Raises
    ------
    FeatureStoreError
        Of that kind, or as `answering`.
    """
    try:
        with answering(uri):
            yield
    except FeatureStoreError:
        raise
    except Exception as error:
        if not refusals.refusal(error):
            raise
        advice = fix or f"check the names and the tracking URI ({uri}){refusals.AGAIN}"
        raise kind(wrong, found=refusals.reason(error), fix=advice) from error


def lost(error: BaseException) -> str | None:
    """Return what went wrong with the connection, if that is why something was raised."""
    from requests import exceptions  # with MLflow, which raises them

    broken = (
        exceptions.ConnectionError, exceptions.Timeout, exceptions.RetryError,
        exceptions.ChunkedEncodingError,
    )  # fmt: skip
    for one in refusals.causes(error):
        status = getattr(getattr(one, "response", None), "status_code", 0)
        if isinstance(one, broken) or (isinstance(one, exceptions.HTTPError) and status >= 500):
            return reason(one)
    return None


def reason(error: BaseException) -> str:
    """Return the innermost words of what requests raises."""
    inner = getattr(error.args[0] if error.args else error, "reason", error)
    return refusals.reason(inner).rpartition("): ")[2]
