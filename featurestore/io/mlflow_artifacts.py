"""Where MLflow is, and builds logged to it once (imported late: it costs more than a second)."""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from featurestore.io import locks, preflight, tracking_server
from featurestore.printing import is_quiet
from featurestore.redaction import redacted

DEFAULT_TRACKING = "sqlite:///mlflow.db"
SQLITE = "sqlite:///"

EXPERIMENT = "feature-store"

DIGEST_TAG = "featurestore.digest"


class RedactingFilter(logging.Filter):
    """Takes the secrets out of what MLflow logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite a record; keep it."""
        record.msg, record.args = redacted(record.getMessage()), None
        return True


def use_tracking(uri: str | None = None) -> str:
    """Point MLflow at a tracking store, after making sure that a server lets us in.

    User and password in a server's URI are taken out of it, see
    `featurestore.io.tracking_server.signed_in`.

    Parameters
    ----------
    uri
        A tracking URI; by default ``MLFLOW_TRACKING_URI``, else a sqlite file in the working
        folder.

    Raises
    ------
    TrackingError
        An HTTP server does not answer within five seconds, is none of MLflow's, or bars us.
    """
    uri = tracking_server.signed_in(
        uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING
    )
    if tracking_server.over_http(uri):
        tracking_server.check(uri)
    tracking_server.be_patient()
    # Who is asked for what stays between us and the tracking store; read when MLflow is imported.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    # Its INFO lines on tables made and versions created would drown what the user asked for.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    for handler in logging.getLogger("mlflow").handlers:
        if not any(isinstance(other, RedactingFilter) for other in handler.filters):
            handler.addFilter(RedactingFilter())
    for repeating in ("store.db.utils", "utils.databricks_utils"):  # what is raised anyway
        logging.getLogger(f"mlflow.{repeating}").setLevel(logging.CRITICAL)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    if is_quiet():
        _silence()
    mlflow.set_tracking_uri(uri)
    if tracking_server.over_http(uri):
        with (
            tracking_server.impatient(),
            tracking_server.translated(uri, f"MLflow at {uri} cannot be asked"),
        ):
            mlflow.MlflowClient().search_experiments(max_results=1)
    return uri


def _silence() -> None:
    """Let MLflow, and what makes its tables, say errors alone."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"


@contextmanager
def silenced() -> Iterator[None]:
    """Let MLflow print nothing in the block under ``--quiet``; what it raises is raised.

    Of a registered model it prints without a logger, so that no level silences it.
    """
    from mlflow.utils.logging_utils import disable_logging, enable_logging

    if not is_quiet():
        yield
        return
    disable_logging()
    try:
        yield
    finally:
        enable_logging()


def make_tables() -> None:
    """Let MLflow make its tables while no other process does: it would stumble over them."""
    if database := _database():
        _make_tables(database)


def _database() -> Path | None:
    import mlflow

    file = mlflow.get_tracking_uri().removeprefix(SQLITE)
    return None if file == mlflow.get_tracking_uri() else Path(file).absolute()


@cache
def _make_tables(database: Path) -> None:
    import mlflow

    with locks.exclusive(database.with_name(f"{database.name}.lock")):
        mlflow.MlflowClient().search_experiments(max_results=1)


class Build(NamedTuple):
    """A build that is logged to MLflow: ``runs:/RUN``, its tags, and when (UTC)."""

    root: str
    tags: dict[str, str]
    made: str


def find_artifact(name: str, content: str) -> str | None:
    """Return ``runs:/RUN`` of an earlier `logged` build, or None."""
    builds = find_builds(name, {DIGEST_TAG: f"{name}-{content}"})
    return builds[-1].root if builds else None


def find_builds(name: str, tags: Mapping[str, str]) -> list[Build]:
    """Return earlier `logged` builds that have some tags, the latest first.

    Parameters
    ----------
    name
        Of the kind of build, for errors.
    """
    import mlflow

    database = _database()
    if database and not database.exists():
        return []  # asking would make the database: a question must not write
    make_tables()
    with tracking_server.translated(
        mlflow.get_tracking_uri(), f"MLflow cannot be asked for {name}"
    ):
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name(EXPERIMENT)
        preflight.check_experiment(experiment, EXPERIMENT)
        if experiment is None:
            return []
        wanted = [f"tags.`{tag}` = '{value}'" for tag, value in tags.items()]
        runs = client.search_runs(
            [experiment.experiment_id],
            " and ".join([*wanted, "attributes.status = 'FINISHED'"]),
            order_by=["attributes.start_time DESC"],
        )
    return [
        Build(
            f"runs:/{run.info.run_id}",
            dict(run.data.tags),
            _utc(run.info.start_time),
        )
        for run in runs
    ]


def _utc(milliseconds: int) -> str:
    time = datetime.fromtimestamp(milliseconds / 1000, UTC).replace(tzinfo=None)
    return time.isoformat(" ", "microseconds")


def logged(
    name: str,
    content: str,
    build: Callable[[Path], object],
    tags: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return ``runs:/RUN`` of a build logged to MLflow, building and logging it the first time.

    The run is found again by a tag with the digest.

    Parameters
    ----------
    name, content, build
        As of `featurestore.io.cache.built`.
    tags
        What else to tag the run with.
    """
    import mlflow

    earlier = find_artifact(name, content)
    if earlier:
        return earlier
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        with tracking_server.translated(mlflow.get_tracking_uri(), f"MLflow takes no {name}"):
            make_tables()
            client = mlflow.MlflowClient()
            experiment = mlflow.set_experiment(EXPERIMENT).experiment_id
            all_tags = {**tags, DIGEST_TAG: f"{name}-{content}"}
            run = client.create_run(experiment, run_name=name, tags=all_tags).info.run_id
            client.log_artifacts(run, folder)
            client.set_terminated(run)  # only now can `find_artifact` find it
    return f"runs:/{run}"
