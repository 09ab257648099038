"""Heads by closed forms against scikit-learn, for folds and penalties at once."""

import numpy as np
import pytest
import torch
from engine_problems import make_problem, of_rank, one_head, run
from ranks import ranks
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler
from sklearn_shards import HEADS
from torch import Tensor

from train.engine.heads import train_mask
from train.engine.shard import Reduce, Shard
from train.engine.solvers.closed_form import CLOSED, ClosedFormTrainer


def scikit_learns(name: str, decay: float, rows: int, classes: int):
    """Return the estimator that says the same."""
    return {
        "ridge": RidgeClassifier(alpha=decay * rows, class_weight="balanced"),
        "lda": LinearDiscriminantAnalysis(
            solver="lsqr", shrinkage=decay, priors=np.full(classes, 1 / classes)
        ),
        "prototype": NearestCentroid(),
    }[name]


@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_")
@pytest.mark.parametrize("zscore", [False, True])
@pytest.mark.parametrize("name", CLOSED)
def test_it_is_scikit_learns(dataset: tuple[Shard, int], name: str, zscore: bool):
    shard, classes = dataset
    problem = make_problem(shard, HEADS, zscore=zscore, classes=classes)
    result = run(ClosedFormTrainer(problem, name))
    y = shard.target[0].numpy()
    for head in range(len(HEADS)):
        rows = train_mask(shard, HEADS.select(one_head(head)))[0].numpy()
        x = shard.x.numpy().astype(float)
        x = StandardScaler().fit(x[rows]).transform(x) if zscore else x
        decay = float(HEADS.weight_decay[head])
        model = scikit_learns(name, decay, rows.sum(), classes).fit(x[rows], y[rows])
        logits = result.weights.select(one_head(head)).logits(shard.x)[0].T
        np.testing.assert_array_equal(logits.argmax(dim=1).numpy(), model.predict(x))
        if name == "ridge":
            scores = logits if classes > 2 else logits[:, 1]
            np.testing.assert_allclose(scores, model.decision_function(x), rtol=1e-3, atol=1e-4)
        if name == "lda":
            probabilities = logits.double().softmax(dim=1)
            np.testing.assert_allclose(probabilities, model.predict_proba(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("name", CLOSED)
def test_processes_find_the_same_heads(dataset: tuple[Shard, int], name: str, world: int):
    shard, classes = dataset
    problem = make_problem(shard, HEADS, classes=classes)

    def work(share: Shard, reduce: Reduce) -> Tensor:
        result = run(ClosedFormTrainer(of_rank(problem, share, reduce), name))
        return result.weights.logits(shard.x)

    expected = work(shard, problem.reduce)
    for logits in ranks(shard, world, work):
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
