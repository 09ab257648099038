"""The code of a registered model: what it answers, and in which form.

MLflow copies this file into the folder of each model and runs it there ("models from code"): it
knows MLflow, NumPy, pandas and torch, and nothing of this project. No other module imports it.
"""

import os
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.pyfunc import PythonModel, PythonModelContext

ANSWERS = ("auto", "probabilities", "labels", "table")
"""What `answer` may be; ``auto`` is ``probabilities`` for an array, ``labels`` for a DataFrame."""


class TileClassifier(PythonModel):
    """A head on tile embeddings, as `mlflow.pyfunc.load_model` gives it."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the graph that lies beside this file.

        Parameters
        ----------
        context
            Its artifact ``graph`` is the file; its configuration may name a ``device``.
        """
        folder = Path(context.artifacts["graph"]).parents[1]
        known = Model.load(str(folder)).metadata or {}
        self.classes: list[str] = known["classes"]
        self.dim: int = known["dim"]
        self.device = (context.model_config or {}).get("device") or default_device()
        # By the flavor, which refuses pickles where MLFLOW_ALLOW_PICKLE_DESERIALIZATION says so.
        self.network = mlflow.pytorch.load_model(str(folder), device=self.device)

    # An array is taken as well. This hint is one that MLflow makes no schema of, nor warns of.
    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> Any:
        """Return what the model says of embeddings.

        Parameters
        ----------
        context
            Unused: all has been loaded.
        model_input
            Embeddings, array or DataFrame (rows, dim) of any kind of number; computed as float32.
        params
            ``answer``: one of `ANSWERS`.

        Returns
        -------
        numpy.ndarray, pandas.Series or pandas.DataFrame
            ``probabilities``: float32 (rows, K), as the input an array or a DataFrame;
            ``labels``: class names; ``table``: a column of probabilities for each class, then
            ``label`` and ``probability``, that of the label.

        Raises
        ------
        MlflowException
            The embeddings are of another length, or ``answer`` is unknown.
        """
        is_frame = isinstance(model_input, pd.DataFrame)
        answer = (params or {}).get("answer", "auto")
        if answer not in ANSWERS:
            raise MlflowException.invalid_parameter_value(
                f"There is no answer {answer!r}: set it to one of {', '.join(ANSWERS)}"
            )
        if answer == "auto":
            answer = "labels" if is_frame else "probabilities"
        probabilities = self.probabilities(model_input)
        index = model_input.index if is_frame else None
        if answer == "probabilities":
            return pd.DataFrame(probabilities, index=index) if is_frame else probabilities
        labels = pd.Series(np.asarray(self.classes, dtype=object), name="label")
        labels = labels.iloc[probabilities.argmax(axis=1)]
        labels.index = pd.RangeIndex(len(labels)) if index is None else index
        if answer == "labels":
            return labels
        table = pd.DataFrame(probabilities, columns=self.classes, index=labels.index)
        # Beside the classes, whatever these are called: a class may be named "label".
        return pd.concat([table, labels, table.max(axis=1).rename("probability")], axis="columns")

    def probabilities(self, embeddings: Any) -> npt.NDArray[np.float32]:
        """Return the probabilities of the classes, shape (rows, K); raises as `predict`."""
        with np.errstate(over="ignore"):  # what becomes infinite is refused by the graph
            x = np.asarray(embeddings, dtype=np.float32)
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise MlflowException.invalid_parameter_value(
                f"Shape of input {x.shape} does not match expected shape (-1, {self.dim})"
            )
        with torch.no_grad():
            rows = torch.from_numpy(np.ascontiguousarray(x)).to(self.device)
            probabilities: npt.NDArray[np.float32] = self.network(rows).cpu().numpy()
        return probabilities


def default_device() -> str:
    """Return where a model is applied unless its configuration says so: on the CPU.

    There the graph was exported, and weights of a graph do not move.
    """
    return os.environ.get("MLFLOW_DEFAULT_PREDICTION_DEVICE") or "cpu"


mlflow.models.set_model(TileClassifier())
