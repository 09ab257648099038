"""A tracking server that is lost in the midst of a fit, played by MLflow's client in this process.

`tests/train/tracking/test_server.py` kills a real one.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
from conftest import TABLES
from mlflow.exceptions import MlflowException
from requests import ConnectionError, HTTPError, Response
from requests.exceptions import ReadTimeout, RetryError

from featurestore.errors import ArtifactError, TrackingError
from featurestore.io import mlflow_artifacts, names, tracking_server, uris
from train import probe
from train.reports import history
from train.tracking.runs import load_run

CHECKPOINT = "checkpoint.safetensors"


def refused() -> MlflowException:
    """Return what MLflow raises when nobody listens."""
    error = MlflowException("API request to http://127.0.0.1:5000/api failed")
    error.__cause__ = ConnectionError("HTTPConnection(host='h', port=5000): Connection refused")
    return error


@contextmanager
def lost(call: str, number: int = 1, done: bool = False) -> Iterator[list[str]]:
    """Lose the server at the n-th call of one of the client's methods, for all methods.

    Parameters
    ----------
    done
        Whether that call still did its work, and its answer alone is lost.

    Yields
    ------
    list of str
        The calls since.
    """
    client, since, before = mlflow.MlflowClient, [], 0

    def dying(name: str, method: Callable) -> Callable:
        def wrapped(*given, **named):
            nonlocal before
            if not since:
                before += name == call
                if name != call or before < number:
                    return method(*given, **named)
                if done:
                    method(*given, **named)
            since.append(name)
            raise refused()

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        for name, method in vars(client).items():
            if callable(method) and not name.startswith("__"):
                patch.setattr(client, name, dying(name, method))
        yield since
    assert since, f"{call} was not called {number} times"


@pytest.fixture
def argv(artifacts: TABLES, tmp_path: Path) -> list[str]:
    """Return the arguments of a fit of six epochs on twelve tiles."""
    (tmp_path / "own.yaml").write_text(
        "data: {name: own}\nmax_epochs: 6\npatience: 6\nmin_delta: 0\n"
        "learning_rate: 0.1\nclass_indices: {Fat: 0, Muscle: 1}\n"
        "thresholds: {Fat: 0.5, Muscle: 0.5}\n"
    )
    (tmp_path / "none.yaml").write_text("{}")
    named = [f"{key}={value}" for key, value in artifacts().items()]
    return ["data=own.yaml", "classes=none.yaml", "fold=1", "batch_size=4", *named]


def runs(tmp_path: Path) -> list[mlflow.entities.Run]:
    """Return the fits that MLflow knows."""
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    return client.search_runs([client.get_experiment_by_name("tissue-probe").experiment_id])


LIVES = [
    # what is lost, which call of it, whether it was done, what the error says of the fit
    ("log_batch", 10, False, "epochs of the fit in"),  # an epoch, between its metrics and pictures
    ("log_text", 1, False, "6 epochs of the fit in"),  # the table of epochs
    ("log_text", 3, True, "6 epochs of the fit in"),  # a table of the evidence, there by then
    ("log_model_artifacts", 1, False, "6 epochs of the fit in"),  # a model half recorded
    ("_create_model_version", 1, True, "6 epochs of the fit in"),  # registered, but nobody knows
    ("set_terminated", 1, False, "6 epochs of the fit in"),
]


@pytest.mark.slow
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_fit_that_loses_its_server_again_and_again_ends_as_if_it_had_not(
    head: str,
    argv: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    """One run, one version, no epoch twice or left out, the same weights."""
    monkeypatch.setattr(history, "EVERY", 0.0)  # a request an epoch, as where epochs take long
    argv += [f"head={head}"]
    assert probe.main([*argv, "output=whole", "tracking.enabled=false"]) == 0
    capsys.readouterr()
    tracked = [*argv, "output=out", f"tracking.uri=sqlite:///{tmp_path / 'mlflow.db'}"]
    for life, (call, number, done, kept) in enumerate(LIVES if head == "linear" else LIVES[:1]):
        with lost(call, number, done) as since:
            assert probe.main([*tracked, f"resume={str(life > 0).lower()}"]) == 2, call
        error = capsys.readouterr().err
        assert error.count("error: The MLflow tracking server at sqlite") == 1, error
        for words in ("stopped answering", "Connection refused", kept, f"in out/{CHECKPOINT}",
                      "with resume=true"):  # fmt: skip
            assert words in error, (call, words, error)
        assert (tmp_path / "out" / CHECKPOINT).is_file()
        # Nobody goes on asking, but for ending the run, once; MLflow itself gives up its model.
        assert set(since) <= {call, "set_terminated", "finalize_logged_model"}, since
        assert mlflow.active_run() is None
    assert probe.main([*tracked, "resume=true"]) == 0
    [run] = runs(tmp_path)
    assert run.info.status == "FINISHED"
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    for name in run.data.metrics:
        steps = [entry.step for entry in client.get_metric_history(run.info.run_id, name)]
        if name.startswith(("train/", "validation/", "learning_rate")):
            assert steps == list(range(6)), name
        elif name.startswith(("funnel/", "class_weight/")):
            assert steps == [0], name
    [version] = client.search_model_versions("name = 'tissue-probe'")
    assert (version.run_id, str(version.version)) == (run.info.run_id, "1")
    [model] = mlflow.search_logged_models([run.info.experiment_id], output_format="list")
    assert version.source == model.model_uri
    for name in ("slides.json", "funnel.json", "confusions.json", "evidence.json"):
        rows = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{name}"))["data"]
        assert len(rows) == len({str(row) for row in rows}), name  # MLflow would append
    assert (tmp_path / "out" / CHECKPOINT).read_bytes() == (
        tmp_path / "whole" / CHECKPOINT
    ).read_bytes()
    assert not list(tmp_path.glob(".featurestore/fits/*"))


@pytest.mark.slow
@pytest.mark.parametrize("call", ["create_run", "log_inputs"])
def test_a_server_lost_before_the_first_epoch_leaves_nothing_to_resume(
    call: str, argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The error says so; resume=true explains itself, resume=auto starts anew."""
    mlflow_artifacts.use_tracking(f"sqlite:///{tmp_path / 'mlflow.db'}")
    mlflow.set_experiment("tissue-probe")  # or the first run of all is one of the store's folds
    argv += [f"tracking.uri=sqlite:///{tmp_path / 'mlflow.db'}", "tracking.register=false"]
    with lost(call):
        assert probe.main([*argv, "resume=auto"]) == 2
    error = capsys.readouterr().err
    assert "kept: nothing, no epoch had ended" in error
    assert error.rstrip().endswith("start the server, then run the same command")
    assert probe.main([*argv, "resume=true"]) == 2
    assert "leave resume=true out" in capsys.readouterr().err
    with lost("log_artifact", 14):  # in the midst of training: it did start
        assert probe.main([*argv, "resume=auto"]) == 2
    assert "with resume=true" in capsys.readouterr().err


def test_a_lost_server_is_not_taken_for_an_artifact_that_is_missing(tmp_path: Path):
    mlflow_artifacts.use_tracking(f"sqlite:///{tmp_path / 'mlflow.db'}")
    mlflow_artifacts.make_tables()
    for ask, call in (
        (lambda: uris.local_path("runs:/abc/tiles.parquet"), "get_run"),
        (lambda: names.run_of("models:/m/1"), "get_model_version"),
        (lambda: names.run_of("models:/m@champion"), "get_model_version_by_alias"),
        (lambda: load_run("abc"), "get_run"),
        (lambda: mlflow_artifacts.find_artifact("digits", "0"), "get_experiment_by_name"),
        (lambda: mlflow_artifacts.logged("digits", "0", lambda _: None), "log_artifacts"),
    ):
        with lost(call), pytest.raises(TrackingError, match="stopped answering"):
            ask()
    with pytest.raises(ArtifactError, match="no artifact"):
        uris.local_path("runs:/abc/tiles.parquet")


def test_what_counts_as_lost():
    """Connections that break or stall, and 5xx of a dying proxy; not what a server refuses."""

    def answered(status: int) -> HTTPError:
        response = Response()
        response.status_code = status
        return HTTPError(f"{status} of http://h", response=response)

    assert tracking_server.lost(answered(502)) == "502 of http://h"
    assert tracking_server.lost(RetryError("too many 500 error responses"))
    assert tracking_server.lost(ReadTimeout("Read timed out."))
    assert tracking_server.lost(refused()) == "Connection refused"
    for unlike in (answered(404), MlflowException("no such run"), OSError("disk full")):
        assert tracking_server.lost(unlike) is None


def test_a_users_own_patience_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    mlflow_artifacts.use_tracking(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "3"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "60"
    with tracking_server.impatient():
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "3"


@pytest.mark.slow
def test_a_run_that_this_server_does_not_know_is_named(
    argv: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    """The state is here, the run is recorded elsewhere: nothing goes on that nobody can find."""
    monkeypatch.setattr(history, "EVERY", 0)  # a request an epoch, on any machine
    with lost("log_batch", 10):
        assert probe.main([*argv, f"tracking.uri=sqlite:///{tmp_path / 'mlflow.db'}"]) == 2
    capsys.readouterr()
    other = f"sqlite:///{tmp_path / 'other.db'}"
    assert probe.main([*argv, f"tracking.uri={other}", "resume=true"]) == 2
    assert "MLflow has no run" in capsys.readouterr().err
