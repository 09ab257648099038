"""Heads on the tiles of their validation folds."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from train.engine.confusion import ConfusionCells, confusion_index
from train.engine.problem import Problem
from train.engine.shard import DROPPED, gather_rows
from train.engine.weights import LinearHeads

Part = tuple[Tensor, Tensor, Tensor, Tensor]
"""Heads of one validation fold on some of its tiles: the heads' numbers, shape (M,); the local
rows, shape (R,); scores, of which the highest is the prediction, shape (M, K, R); sums of losses
and of weights, shape (2, M)."""


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
    confusion : Tensor of int, shape (H, K, K)
        By head, true and predicted class; empty unless ``counted``.
    """
    return count(problem, _apply(problem, weights), counted)


def evaluate_classes(problem: Problem, weights: LinearHeads) -> tuple[Tensor, Tensor]:
    """Apply each head to the tiles of its own validation fold, and count them by class.

    Returns
    -------
    loss : Tensor of double, shape (H,)
        As of `evaluate`.
    counts : Tensor of int, shape (3, H, K)
        Tiles that were predicted rightly, that are of the class, and that were predicted to be.
    """
    return count_classes(problem, _apply(problem, weights))


def evaluate_by_cluster(problem: Problem, weights: LinearHeads) -> tuple[Tensor, ConfusionCells]:
    """Apply each head to the tiles of its own validation fold, and count them by cluster.

    Returns
    -------
    loss : Tensor of double, shape (H,)
        As of `evaluate`.
    confusion : ConfusionCells
        Of units head * clusters + cluster. Memory is linear in the tiles and in how many heads
        validate on each of them.
    """
    return count_by_cluster(problem, _apply(problem, weights))


@torch.no_grad()
def count(problem: Problem, parts: Iterable[Part], counted: bool) -> tuple[Tensor, Tensor]:
    """Return what `evaluate` does, of scores that are given."""
    shard, number, classes = problem.validation, len(problem.heads), problem.classes
    sums = torch.zeros((2, number), dtype=torch.float64, device=shard.device)
    size = number * classes**2 if counted else 0
    confusion = torch.zeros(size, dtype=torch.int64, device=shard.device)
    for heads, rows, scores, part_sums in parts:
        sums[:, heads] += part_sums
        if counted:
            index = _cells(problem, heads, rows, scores, heads[:, None]).flatten()
            confusion.scatter_add_(0, index, torch.ones_like(index))
    sums, confusion = problem.reduce(sums), problem.reduce(confusion)
    return sums[0] / sums[1].clamp(min=1e-12), confusion.view(-1, classes, classes)


@torch.no_grad()
def count_classes(problem: Problem, parts: Iterable[Part]) -> tuple[Tensor, Tensor]:
    """Return what `evaluate_classes` does, of scores that are given: linear in the classes."""
    shard, number, classes = problem.validation, len(problem.heads), problem.classes
    sums = torch.zeros((2, number), dtype=torch.float64, device=shard.device)
    counts = torch.zeros((3, number * classes), dtype=torch.int64, device=shard.device)
    for heads, rows, scores, part_sums in parts:
        sums[:, heads] += part_sums
        predicted = scores.argmax(dim=1)
        target = shard.target[problem.heads.variant[heads[0]], rows].expand_as(predicted)
        hits, first = (predicted == target).long(), heads[:, None] * classes
        each = ((target, hits), (target, torch.ones_like(hits)), (predicted, torch.ones_like(hits)))
        for row, (index, tiles) in zip(counts, each, strict=True):
            row.scatter_add_(0, (first + index).flatten(), tiles.flatten())
    sums, counts = problem.reduce(sums), problem.reduce(counts)
    return sums[0] / sums[1].clamp(min=1e-12), counts.view(3, number, classes)


@torch.no_grad()
def count_by_cluster(problem: Problem, parts: Iterable[Part]) -> tuple[Tensor, ConfusionCells]:
    """Return what `evaluate_by_cluster` does, of scores that are given.

    Each tile's cell is put where the tile stands in the order of all tiles: added up over the
    processes, that is what each of them has counted.
    """
    shard, number = problem.validation, len(problem.heads)
    sums = torch.zeros((2, number), dtype=torch.float64, device=shard.device)
    slots = _slots(problem).to(shard.device)
    size = (int(slots.max()) + 1, shard.rows)
    cells = torch.zeros(size, dtype=torch.int64, device=shard.device)  # 0 where there is no tile
    positions = np.arange(shard.rows) if shard.positions is None else shard.positions
    position = torch.from_numpy(positions).to(shard.device)
    for heads, rows, scores, part_sums in parts:
        sums[:, heads] += part_sums
        unit = heads[:, None] * shard.clusters + shard.cluster[rows]
        index = _cells(problem, heads, rows, scores, unit)
        cells[slots[heads][:, None], position[rows]] = index + 1
    sums, cells = problem.reduce(sums), problem.reduce(cells)
    tiles = (cells[cells > 0] - 1).cpu().numpy()
    loss = sums[0] / sums[1].clamp(min=1e-12)
    return loss, ConfusionCells.of(tiles, number * shard.clusters, problem.classes)


def _cells(problem: Problem, heads: Tensor, rows: Tensor, scores: Tensor, unit: Tensor) -> Tensor:
    target = problem.validation.target[problem.heads.variant[heads[0]], rows]
    return confusion_index(unit, target, scores.argmax(dim=1), problem.classes)


def _slots(problem: Problem) -> Tensor:
    """Return numbers of heads that differ where two validate on one tile, shape (H,)."""
    slots = torch.zeros(len(problem.heads), dtype=torch.int64)
    first, last, before = 0, 0, None
    for variant, _, heads in problem.heads.by_validation_fold():
        first, before = last if variant != before else first, variant
        slots[heads.cpu()] = first + torch.arange(len(heads))
        last = max(last, first + len(heads))
    return slots


def _apply(problem: Problem, weights: LinearHeads) -> Iterator[Part]:
    shard, losses = problem.validation, problem.losses.plain()
    buffer = torch.empty(0)
    for start, section in shard.sections():
        for variant, fold, members in problem.heads.by_validation_fold():
            if fold == DROPPED:
                continue
            heads, head_losses = weights.select(members), losses.select(members)
            alone = torch.zeros_like(members)  # of one variant
            for rows in (section.fold[variant] == fold).nonzero()[:, 0].split(shard.block):
                assert isinstance(section.x, Tensor)
                x, buffer = gather_rows(section.x, rows, buffer, shard.block)
                logits = heads.logits(x.to(shard.device))
                target = section.target[variant, rows][None].clamp(min=0)
                weight = head_losses.class_weights[:, target[0]]
                _, loss_sums = head_losses.residuals(logits, target, alone, weight)
                sums = torch.stack([loss_sums, weight.sum(dim=1, dtype=torch.float64)])
                yield members, start + rows, logits, sums


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
