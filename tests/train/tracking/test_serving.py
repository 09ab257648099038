"""The registered model behind MLflow's own server: real requests over HTTP."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException

from train.models import checkpoint
from train.models.heads import NOT_FINITE

pytestmark = pytest.mark.slow
MODEL = "models:/tissue-probe@champion"


@pytest.fixture(scope="module")
def uri(digits_home: Path) -> str:
    """Return a registry whose first version is the champion."""
    uri = f"sqlite:///{digits_home / 'mlflow.db'}"
    mlflow.MlflowClient(uri).set_registered_model_alias("tissue-probe", "champion", "1")
    return uri


@pytest.fixture(scope="module")
def address(uri: str, digits_home: Path) -> Iterator[str]:
    """Serve the champion on loopback, until the tests end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", MODEL, "--env-manager",
               "local", "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with (digits_home / "serve.txt").open("w") as log:
        process = subprocess.Popen(
            command, cwd=digits_home, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "MLFLOW_TRACKING_URI": uri, "PATH": path},
        )  # fmt: skip
        try:
            for _ in range(240):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=1).close()
                    break
                except OSError:
                    assert process.poll() is None, (digits_home / "serve.txt").read_text()
                    time.sleep(0.25)
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def asked(address: str, rows: list[list]) -> tuple[int, dict]:
    request = urllib.request.Request(
        address, json.dumps({"inputs": rows}).encode(),
        {"Content-Type": "application/json"},
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)


def test_a_request_is_answered_with_the_models_probabilities(address: str, uri: str):
    batch = np.random.default_rng(0).random((5, 64)).astype(np.float32)
    status, answer = asked(address, batch.tolist())
    assert status == 200
    mlflow.set_tracking_uri(uri)
    expected = mlflow.pyfunc.load_model(MODEL).predict(batch)
    np.testing.assert_allclose(answer["predictions"], expected, atol=1e-6)


def test_a_wrong_dimension_is_the_callers_fault(address: str):
    status, answer = asked(address, np.zeros((2, 63)).tolist())
    assert status == 400
    assert "(2, 63)" in answer["message"]
    assert "(-1, 64)" in answer["message"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), None, 1e39])
def test_a_value_that_is_not_finite_is_the_callers_fault(address: str, value: float | None):
    """As float32: what is too large for it is infinite. The next request is answered."""
    status, answer = asked(address, [[0.5] * 64, [*[0.5] * 63, value]])
    assert status == 400
    assert NOT_FINITE in answer["stack_trace"]
    assert "predictions" not in answer
    assert asked(address, [[0.5] * 64])[0] == 200


def test_the_check_changes_no_bit_of_a_prediction(digits_home: Path, uri: str):
    """Of the registered graph against the checkpoint beside it."""
    mlflow.set_tracking_uri(uri)
    network = checkpoint.load(Path(mlflow.artifacts.download_artifacts(MODEL))).network
    batch = np.random.default_rng(1).normal(size=(300, 64)).astype(np.float32)
    expected = network(torch.from_numpy(batch)).numpy()
    answer = mlflow.pyfunc.load_model(MODEL).predict(batch)
    np.testing.assert_array_equal(answer, expected)


def test_mlflow_evaluates_a_version_by_its_name(uri: str, digits_home: Path):
    mlflow.set_tracking_uri(uri)
    x, frame = embeddings()
    predicted = mlflow.pyfunc.load_model(MODEL).predict(frame)
    right = np.arange(len(x)) % 3 > 0  # a third of the labels is made wrong
    frame["label"] = np.where(right, predicted, "9" if predicted.iloc[0] != "9" else "8")
    with mlflow.start_run(experiment_id="0"):  # else that of a test before, in another store
        evaluated = mlflow.models.evaluate(
            MODEL, frame, targets="label", model_type="classifier", evaluators=["default"],
        )  # fmt: skip
    expected = (frame["label"] == predicted).mean()
    assert evaluated.metrics["accuracy_score"] == pytest.approx(expected)


def test_an_answer_is_asked_for_by_a_parameter(uri: str):
    mlflow.set_tracking_uri(uri)
    x, frame = embeddings()
    model = mlflow.pyfunc.load_model(MODEL)
    probabilities = model.predict(x)  # as ever: an array for an array
    assert (probabilities.dtype, probabilities.shape) == (np.float32, (30, 10))
    table = model.predict(frame, params={"answer": "table"})
    assert [*table] == [*map(str, range(10)), "label", "probability"]
    assert table.index.equals(frame.index)
    np.testing.assert_array_equal(table[table.columns[:10]], probabilities)
    assert [*table["label"]] == [str(index) for index in probabilities.argmax(axis=1)]
    np.testing.assert_array_equal(table["probability"], probabilities.max(axis=1))
    assert [*model.predict(frame)] == [*table["label"]]
    asked = model.predict(frame, params={"answer": "probabilities"})
    np.testing.assert_array_equal(asked, probabilities)
    with pytest.raises(MlflowException, match="set it to one of auto, probabilities, labels"):
        model.predict(x, params={"answer": "logits"})


def test_numbers_of_any_precision_are_taken(uri: str):
    mlflow.set_tracking_uri(uri)
    x, _ = embeddings()
    model = mlflow.pyfunc.load_model(MODEL)
    np.testing.assert_array_equal(model.predict(x), model.predict(x.astype(np.float32)))


def embeddings() -> tuple[np.ndarray, pd.DataFrame]:
    """Return embeddings in double precision, and the same with names of rows and columns."""
    x = np.random.default_rng(2).normal(size=(30, 64))
    return x, pd.DataFrame(x, index=[f"tile{n}" for n in range(30)]).rename(columns=str)


def test_the_signature_names_classes_and_answers(uri: str):
    mlflow.set_tracking_uri(uri)
    info = mlflow.models.get_model_info(MODEL)
    [taken], [answer] = info.signature.outputs.inputs, info.signature.params.params
    assert info.metadata["dim"] == 64
    assert taken.shape == (-1, 10)
    assert taken.name == "probabilities of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert (answer.name, answer.default) == ("answer", "auto")
