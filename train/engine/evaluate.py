"""Heads on the tiles of their validation folds."""

import torch
from torch import Tensor
from torch.nn import functional

from train.engine.confusion import confusion_index
from train.engine.problem import Problem
from train.engine.shard import DROPPED, gather_rows
from train.engine.weights import LinearHeads


@torch.no_grad()
def evaluate(problem: Problem, weights: LinearHeads, counted: bool = True) -> tuple[Tensor, Tensor]:
    """Apply each head to the tiles of its own validation fold.

    Parameters
    ----------
    weights
        Of the problem's heads, on embeddings as they are.
    counted
        Whether confusions are wanted.

    Returns
    -------
    loss : Tensor of double, shape (H,)
        Mean cross entropy, weighted by class, without label smoothing; 0 for a head without a
        validation fold.
    confusion : Tensor of int, shape (H, clusters, K, K)
        By head, cluster, true and predicted class; empty unless ``counted``.
    """
    shard, losses = problem.validation, problem.losses.plain()
    number, classes, _ = weights.weight.shape
    sums = torch.zeros((2, number), dtype=torch.float64, device=shard.device)
    shape = (number if counted else 0, shard.clusters * classes**2)
    confusion = torch.zeros(shape, dtype=torch.int64, device=shard.device)
    buffer = torch.empty(0)
    for _, section in shard.sections():
        for variant, fold, members in problem.heads.by_validation_fold():
            if fold == DROPPED:
                continue
            heads, head_losses = weights.select(members), losses.select(members)
            for rows in (section.fold[variant] == fold).nonzero()[:, 0].split(shard.block):
                assert isinstance(section.x, Tensor)
                x, buffer = gather_rows(section.x, rows, buffer, shard.block)
                logits = heads.logits(x.to(shard.device))
                target = section.target[variant, rows].expand(len(members), -1)
                if counted:
                    index = confusion_index(
                        section.cluster[rows], target, logits.argmax(dim=1), classes
                    )
                    confusion[members] = confusion[members].scatter_add(
                        1, index, torch.ones_like(index)
                    )
                mask = torch.ones_like(target, dtype=torch.bool)
                sums[:, members] += head_losses.residuals(logits, target, mask)[1]
    sums, confusion = problem.reduce(sums), problem.reduce(confusion)
    loss = sums[0] / sums[1].clamp(min=1e-12)
    return loss, confusion.view(-1, shard.clusters, classes, classes)


@torch.no_grad()
def out_of_fold(problem: Problem, weights: LinearHeads, logits: bool = False) -> Tensor:
    """Return each local row's probabilities by the head that validates on it, shape (rows, K).

    Zero where no head does; of several, the last one's.

    Parameters
    ----------
    weights
        Of the problem's heads, on embeddings as they are.
    logits
        Whether logits are wanted in the place of probabilities.
    """
    shard, heads = problem.validation, problem.heads
    values = torch.zeros((shard.local_rows, problem.classes), device=shard.device)
    buffer = torch.empty(0)
    for start, section in shard.sections():
        for number in range(len(heads)):
            fold = section.fold[heads.variant[number]]
            head = weights.select(torch.tensor([number], device=fold.device))
            for rows in (fold == heads.fold[number]).nonzero()[:, 0].split(shard.block):
                assert isinstance(section.x, Tensor)
                x, buffer = gather_rows(section.x, rows, buffer, shard.block)
                scores = _as_registered(head, x.to(shard.device))
                values[start + rows] = scores if logits else scores.softmax(dim=1)
    return values


def _as_registered(head: LinearHeads, x: Tensor) -> Tensor:
    """Return the logits of one head, shape (rows, K), to the last bits those that it will serve.

    A sum of products in another order than `torch.nn.Linear`'s is off by parts in a million of its
    largest term: of embeddings with a large mean, more than a probability may be.
    """
    if x.dtype != torch.float32:
        return head.logits(x)[0].T
    return functional.linear(x, head.weight[0], head.bias[0])
