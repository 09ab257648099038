"""Losses, confusions and probabilities on validation folds against scikit-learn's."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_problems import CLASSES, DIM, MANY, SLIDES, make_problem, make_weights, of_rank
from ranks import ranks
from sklearn.metrics import confusion_matrix, log_loss
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from train.engine.confusion import ConfusionCells, confusion_index
from train.engine.evaluate import evaluate, evaluate_by_cluster, out_of_fold
from train.engine.shard import BLOCK, DROPPED, Reduce, Shard


def test_evaluation_is_scikit_learns(shard: Shard):
    problem, weights = make_problem(shard, MANY), make_weights(len(MANY))
    loss, confusion = evaluate(problem, weights)
    assert confusion.shape == (len(MANY), CLASSES, CLASSES)
    same_loss, cells = evaluate_by_cluster(problem, weights)
    assert torch.equal(same_loss, loss)
    by_cluster = dense(cells)
    for head in range(len(MANY) - 1):
        variant, fold = int(MANY.variant[head]), int(MANY.fold[head])
        rows = shard.fold[variant] == fold
        logits = (shard.x[rows] @ weights.weight[head].T + weights.bias[head]).double()
        target = shard.target[variant, rows].numpy()
        sample_weight = problem.losses.class_weights[head].numpy()[target]
        expected = log_loss(target, logits.softmax(dim=-1).numpy(), labels=range(CLASSES),
                            sample_weight=sample_weight)  # fmt: skip
        assert float(loss[head]) == pytest.approx(expected, rel=1e-5)
        predicted, cluster = logits.argmax(dim=1).numpy(), shard.cluster[rows].numpy()
        np.testing.assert_array_equal(
            by_cluster[head], confusion_by_cluster(cluster, target, predicted)
        )
    np.testing.assert_array_equal(confusion, by_cluster.sum(axis=1))
    assert int(confusion[-1].sum()) == 0  # validates on nothing
    assert float(loss[-1]) == 0
    assert len(evaluate(problem, weights, counted=False)[1]) == 0


def dense(cells: ConfusionCells) -> np.ndarray:
    """Return counts of shape (heads, clusters, K, K)."""
    counts = np.zeros(cells.units * CLASSES**2, dtype=int)
    counts[cells.index] = cells.count
    return counts.reshape(-1, SLIDES, CLASSES, CLASSES)


def confusion_by_cluster(
    cluster: np.ndarray, target: np.ndarray, predicted: np.ndarray
) -> np.ndarray:
    """Return scikit-learn's matrix of each cluster; zeros for one without tiles."""
    matrices = np.zeros((SLIDES, CLASSES, CLASSES), dtype=int)
    for number in np.unique(cluster):
        rows = cluster == number
        matrices[number] = confusion_matrix(target[rows], predicted[rows], labels=range(CLASSES))
    return matrices


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_confusion_index_counts_as_scikit_learn_does(kind):
    """By cluster, whether arrays or tensors; one cluster has no tile."""
    rng = np.random.default_rng(0)
    cluster = rng.integers(SLIDES - 1, size=500)
    target, predicted = rng.integers(CLASSES, size=(2, 500))
    index = confusion_index(kind(cluster), kind(target), kind(predicted), CLASSES)
    counts = np.bincount(np.asarray(index), minlength=SLIDES * CLASSES**2)
    np.testing.assert_array_equal(
        counts.reshape(SLIDES, CLASSES, CLASSES), confusion_by_cluster(cluster, target, predicted)
    )


def test_probabilities_are_of_the_head_that_has_not_seen_the_tile(shard: Shard):
    """Three of the four folds are validated on; tiles of the other, and dropped ones, stay 0."""
    heads = torch.tensor([0, 1, 2])
    problem = make_problem(shard, MANY).select(heads)
    weights = make_weights(3)
    weights.weight.mul_(torch.tensor([1.0, 2.0, 3.0])[:, None, None])  # no two heads alike
    probabilities = out_of_fold(problem, weights)
    expected = torch.zeros(len(shard), CLASSES)
    for fold in range(3):
        rows = shard.fold[0] == fold
        expected[rows] = (shard.x[rows] @ weights.weight[fold].T).softmax(dim=1)
    torch.testing.assert_close(probabilities, expected)
    unseen = (shard.fold[0] == 3) | (shard.fold[0] == DROPPED)
    assert torch.equal(probabilities.sum(dim=1) == 0, unseen)


@pytest.mark.parametrize("world", [2, 4])
def test_processes_count_what_one_counts(shard: Shard, world: int):
    problem, weights = make_problem(shard, MANY), make_weights(len(MANY))

    def work(share: Shard, reduce: Reduce) -> tuple:
        local = of_rank(problem, share, reduce)
        _, cells = evaluate_by_cluster(local, weights)
        return *evaluate(local, weights), out_of_fold(local, weights), share.positions, dense(cells)

    loss, confusion, probabilities, _, by_cluster = work(shard, problem.reduce)
    for result in ranks(shard, world, work):
        torch.testing.assert_close(result[0], loss)
        assert torch.equal(result[1], confusion)
        torch.testing.assert_close(result[2], probabilities[result[3]])
        np.testing.assert_array_equal(result[4], by_cluster)


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation has returned."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple) else (result,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_memory_goes_by_the_tiles_however_many_slides_there_are(shard: Shard):
    """Of 10^9 slides, whose matrices no machine holds."""
    many = replace(shard, clusters=10**9, cluster=shard.cluster * 10**7)
    problem, weights = make_problem(many, MANY), make_weights(len(MANY))
    with LargestTensor() as largest:
        _, cells = evaluate_by_cluster(problem, weights)
        evaluate(problem, weights)
    assert largest.elements == BLOCK * DIM  # the largest of all: what embeddings are gathered in
    np.testing.assert_array_equal(
        cells.index % CLASSES**2,
        evaluate_by_cluster(make_problem(shard, MANY), weights)[1].index % CLASSES**2,
    )
    assert cells.units == len(MANY) * 10**9
