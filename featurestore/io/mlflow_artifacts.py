"""Where MLflow is, and builds logged to it once (imported late: it costs more than a second)."""

import logging
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from featurestore.io import locks, preflight, tracking_server
from featurestore.redaction import redacted

DEFAULT_TRACKING = "sqlite:///mlflow.db"
SQLITE = "sqlite:///"

EXPERIMENT = "feature-store"

DIGEST_TAG = "featurestore.digest"


class Discreet(logging.Filter):
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
    import mlflow

    # Its INFO lines on tables made and versions created would drown what the user asked for.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    for handler in logging.getLogger("mlflow").handlers:
        if not any(isinstance(other, Discreet) for other in handler.filters):
            handler.addFilter(Discreet())
    for repeating in ("store.db.utils", "utils.databricks_utils"):  # what is raised anyway
        logging.getLogger(f"mlflow.{repeating}").setLevel(logging.CRITICAL)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    mlflow.set_tracking_uri(uri)
    if tracking_server.over_http(uri):
        with (
            tracking_server.impatient(),
            tracking_server.translated(uri, f"MLflow at {uri} cannot be asked"),
        ):
            mlflow.MlflowClient().search_experiments(max_results=1)
    return uri


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


def find_artifact(name: str, content: str) -> str | None:
    """Return ``runs:/RUN`` of an earlier `logged` build, or None."""
    import mlflow

    database = _database()
    if database and not database.exists():
        return None  # asking would make the database: a question must not write
    make_tables()
    with tracking_server.translated(
        mlflow.get_tracking_uri(), f"MLflow cannot be asked for {name}"
    ):
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name(EXPERIMENT)
        preflight.check_experiment(experiment, EXPERIMENT)
        if experiment is None:
            return None
        runs = client.search_runs(
            [experiment.experiment_id],
            f"tags.`{DIGEST_TAG}` = '{name}-{content}' and attributes.status = 'FINISHED'",
            order_by=["attributes.start_time ASC"],
            max_results=1,
        )
    return f"runs:/{runs[0].info.run_id}" if runs else None


def logged(name: str, content: str, build: Callable[[Path], object]) -> str:
    """Return ``runs:/RUN`` of a build logged to MLflow, building and logging it the first time.

    Parameters as of `featurestore.io.cache.built`; the run is found again by a tag with the
    digest.
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
            tags = {DIGEST_TAG: f"{name}-{content}"}
            run = client.create_run(experiment, run_name=name, tags=tags).info.run_id
            client.log_artifacts(run, folder)
            client.set_terminated(run)  # only now can `found` find it
    return f"runs:/{run}"
