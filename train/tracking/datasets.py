"""The inputs of a run as MLflow's datasets, whose sources load the files themselves."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featurestore.redaction import redacted

DIGEST = 32  # of the 36 characters that MLflow keeps of a dataset's digest
LOCAL = "local"  # MLflow's type of sources that `mlflow.artifacts.download_artifacts` gets
WILDCARDS = "*?["
ATTEMPTS = 3


def dataset(name: str, uri: str, digest: str) -> Any:
    """Return an input as MLflow records it.

    ``mlflow.data.get_source(dataset).load()`` gives its file or folder on this machine. Of a glob
    that is the folder which all files of it are in; several places have a source that says which.

    Parameters
    ----------
    uri
        A path or glob, ``file://``, ``s3://``, ``runs:/RUN/path`` or ``mlflow-artifacts:/path``;
        several with commas between.
    digest
        Which names it.
    """
    from mlflow.data.meta_dataset import MetaDataset

    return MetaDataset(source(redacted(uri)), name=name, digest=digest[:DIGEST])


def log(dataset: Any, context: str, tags: Mapping[str, str]) -> None:
    """Record an input of the active run.

    MLflow looks for a dataset, then adds it: of runs that start together, its database refuses
    those that come second, by a constraint. Asked again, they find what the first has added.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    for attempt in range(1, ATTEMPTS + 1):
        try:
            mlflow.log_input(dataset, context=context, tags=dict(tags))
        except MlflowException as error:
            if attempt == ATTEMPTS or "IntegrityError" not in str(error):
                raise
        else:
            return


def source(uri: str) -> Any:
    """Return where an input is to be loaded from."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.dataset_source_registry import get_dataset_source_from_json
    from mlflow.exceptions import MlflowException

    scheme, colon, _ = uri.partition(":/")
    kind = scheme if colon and scheme not in ("file", "runs", "mlflow-artifacts") else LOCAL
    if ", " in uri:
        return CodeDatasetSource(tags={"uri": uri})
    try:
        return get_dataset_source_from_json(json.dumps({"uri": loadable(uri)}), kind)
    except MlflowException:  # a scheme that it knows no source of
        return CodeDatasetSource(tags={"uri": uri})


def loadable(uri: str) -> str:
    """Return a URI, absolute, of what is one file or folder.

    Examples
    --------
    >>> loadable("s3://lab/embeddings/*.parquet"), loadable("runs:/1f/tiles.parquet")
    ('s3://lab/embeddings', 'runs:/1f/tiles.parquet')
    """
    before = min((uri.index(sign) for sign in WILDCARDS if sign in uri), default=len(uri))
    if before < len(uri):
        uri = uri[:before].rpartition("/")[0] or "."
    return uri if ":/" in uri else str(Path(uri).expanduser().absolute())


def dataset_of_metric(metric: str, datasets: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return name and digest of the dataset that a metric is of; twice None for none.

    Parameters
    ----------
    datasets
        Digests by name, of a run.

    Examples
    --------
    >>> dataset_of_metric("best/test/f1_macro", {"tiles": "1f", "test_tiles": "2e"})
    ('test_tiles', '2e')
    >>> dataset_of_metric("best/oof/f1_macro", {"tiles": "1f", "test_tiles": "2e"})
    ('tiles', '1f')
    """
    parts = metric.split("/")
    evaluated = {"test": "test_tiles", "predict": "predict_tiles"}
    names = [evaluated[part] for part in parts if part in evaluated] or ["tiles"]
    is_figure = parts[0] in ("best", "train", "validation", "registered", "registered_fold")
    name = names[0]
    return (name, datasets[name]) if is_figure and name in datasets else (None, None)
