"""Every metric against torchmetrics, an implementation that shares no line with ours."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as oracle
from predicted import predictions
from torch import Tensor

from train.evaluation.estimates import estimate
from train.evaluation.metrics import METRICS

CLASSES = ["Fat", "Muscle", "Nerve", "Stroma"]
K = len(CLASSES)


def each(function: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a metric of each class."""
    return lambda p, t: function(p, t, K, average=None)


def macro(function: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return its mean over the classes."""
    return lambda p, t: function(p, t, K, average="macro")


def brier(p: Tensor, t: Tensor) -> Tensor:
    """Return the Brier score, which torchmetrics lacks."""
    return torch.nn.functional.mse_loss(p, torch.eye(K)[t], reduction="sum") / len(t)


ORACLES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "accuracy": lambda p, t: oracle.multiclass_accuracy(p, t, K, average="micro"),
    "balanced_accuracy": macro(oracle.multiclass_recall),
    "f1_macro": macro(oracle.multiclass_f1_score),
    "kappa": lambda p, t: oracle.multiclass_cohen_kappa(p, t, K),
    "kappa_quadratic": lambda p, t: oracle.multiclass_cohen_kappa(p, t, K, weights="quadratic"),
    "auroc_macro": macro(oracle.multiclass_auroc),
    "average_precision_macro": macro(oracle.multiclass_average_precision),
    "brier": brier,
    "calibration_error": lambda p, t: oracle.multiclass_calibration_error(p, t, K, n_bins=15),
    "recall/<class>": each(oracle.multiclass_recall),
    "f1/<class>": each(oracle.multiclass_f1_score),
    "auroc/<class>": each(oracle.multiclass_auroc),
    "average_precision/<class>": each(oracle.multiclass_average_precision),
}


def test_each_metric_with_an_interval_has_an_oracle():
    assert set(ORACLES) == {key for key, spec in METRICS.items() if spec.final}


@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_torchmetrics(seed: int):
    rng = np.random.default_rng(seed)
    target = rng.integers(K, size=300)
    logits = rng.normal(size=(300, K))
    logits[np.arange(300), target] += seed
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    tiles = predictions(target, probabilities, np.arange(300) // 30, CLASSES)
    metrics = estimate(tiles, ordered=True)
    given = torch.from_numpy(tiles.probabilities), torch.from_numpy(target)
    for key, function in ORACLES.items():
        expected = function(*given).tolist()
        names = [key.replace("<class>", name) for name in CLASSES] if "/" in key else [key]
        values = [metrics[name].value for name in names]
        assert values == pytest.approx(expected if "/" in key else [expected], abs=1e-5), key
