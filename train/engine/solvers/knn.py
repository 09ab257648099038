"""Votes of the nearest tiles: the baseline that has no weights.

A tile's neighbours are taken from the tiles that a head would train on: the nearest ones by
Euclidean distance, which with embeddings of length 1 is the order of the cosine. Each has one vote,
as in scikit-learn's KNeighborsClassifier.

A distance is made of squared lengths, whose difference loses its digits where embeddings lie far
from zero: distances are taken around their mean.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from train.engine.confusion import ConfusionCells
from train.engine.evaluate import Part, count, count_by_cluster
from train.engine.heads import train_mask
from train.engine.matmul import matmul
from train.engine.problem import Problem
from train.engine.shard import DROPPED, Shard
from train.engine.standardizer import fit_centre
from train.engine.trainer import Epoch, FitResult

QUERIES, REFERENCES = 1024, 65536  # rows of a product of distances
LEAST = 1e-3  # share of votes that a class without any is given in the loss


@dataclass
class Votes(FitResult):
    """The votes on every head's validation tiles, in place of weights.

    Parameters
    ----------
    by_head
        Shares of votes, each of shape (local rows, K), zero for tiles that the head does not
        validate on.
    """

    by_head: list[Tensor] = field(default_factory=list)

    def evaluate(self, counted: bool = True) -> tuple[Tensor, Tensor]:
        """Return loss and confusion of each head on its fold, as of heads with weights."""
        return count(self.problem, self._parts(), counted)

    def evaluate_by_cluster(self) -> tuple[Tensor, ConfusionCells]:
        """Return loss and confusion of each head and cluster, as of heads with weights."""
        return count_by_cluster(self.problem, self._parts())

    def _parts(self) -> Iterator[Part]:
        problem, shard = self.problem, self.problem.validation
        for head, (variant, fold) in enumerate(
            zip(problem.heads.variant.tolist(), problem.heads.fold.tolist(), strict=True)
        ):
            if fold == DROPPED:
                continue
            rows = (shard.fold[variant] == fold).nonzero()[:, 0]
            votes, target = self.by_head[head][rows], shard.target[variant, rows]
            weight = problem.losses.class_weights[head, target]
            of_target = votes.gather(1, target[:, None])[:, 0]
            losses = -(weight * of_target.clamp(min=LEAST).log())
            sums = torch.stack([part.sum(dtype=torch.float64) for part in (losses, weight)])
            yield torch.tensor([head], device=shard.device), rows, votes.T[None], sums[:, None]

    def out_of_fold(self, heads: Tensor) -> Tensor:
        """Return each local row's shares of votes by the head that validates on it."""
        return torch.stack([self.by_head[head] for head in heads.tolist()]).sum(dim=0)


class NearestNeighbours:
    """A `train.engine.trainer.Trainer` without weights or epochs.

    Parameters
    ----------
    problem
        Its masks say which tiles vote on which.
    reference
        All tiles of all processes, in memory.
    neighbours
        How many vote.
    """

    def __init__(self, problem: Problem, reference: Shard, neighbours: int) -> None:
        self.problem, self.reference, self.neighbours = problem, reference, neighbours
        self.votes: list[Tensor] = []

    def __iter__(self) -> Iterator[Epoch]:
        """Let the neighbours vote; yields no epoch."""
        problem, number = self.problem, len(self.problem.heads)
        standardizer = problem.standardizer or fit_centre(problem.train, number, problem.reduce)
        centred = replace(problem, standardizer=standardizer)
        self.votes = [
            knn_predict(centred.select(torch.tensor([head])), self.reference, self.neighbours)
            for head in range(number)
        ]
        yield from ()

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: it starts anew."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Start anew."""

    def result(self) -> FitResult:
        """Return the votes."""
        epochs = torch.zeros(len(self.problem.heads), dtype=torch.int64)
        votes = Votes(self.problem, None, epochs, torch.empty(0), by_head=self.votes)
        loss, _ = votes.evaluate()
        return replace(votes, best_loss=loss.cpu())


def knn_predict(problem: Problem, reference: Shard, neighbours: int) -> Tensor:
    """Return the shares of votes on each local row in the validation fold of one head.

    Parameters
    ----------
    problem
        Of the one head; its standardizer moves the embeddings near zero.
    reference
        All tiles of all processes, in memory; those that the head trains on may vote.
    neighbours
        How many vote.

    Returns
    -------
    Tensor, shape (local rows, K)
        Zero for rows that the head does not validate on.
    """
    shard, variant = problem.validation, int(problem.heads.variant)
    votes = torch.zeros((shard.local_rows, problem.classes), device=shard.device)
    if int(problem.heads.fold) == DROPPED:
        return votes
    for start, section in shard.sections():
        for rows in (section.fold[variant] == problem.heads.fold).nonzero()[:, 0].split(QUERIES):
            queries = _embeddings(problem, section, rows)
            votes[start + rows] = _votes(problem, queries, reference, neighbours)
    return votes


def _embeddings(problem: Problem, shard: Shard, rows: Tensor) -> Tensor:
    assert isinstance(shard.x, Tensor)
    assert problem.standardizer
    x = shard.x[rows.to(shard.x.device)].to(rows.device).float()
    return (x - problem.standardizer.mean[0]) / problem.standardizer.scale[0]


def _votes(problem: Problem, query: Tensor, reference: Shard, neighbours: int) -> Tensor:
    variant, classes = int(problem.heads.variant), problem.classes
    nearest = torch.full((len(query), 0), torch.inf, device=query.device)
    label = torch.zeros((len(query), 0), dtype=torch.int64, device=query.device)
    voters = train_mask(reference, problem.heads)[0].nonzero()[:, 0]
    for rows in voters.split(REFERENCES):
        x = _embeddings(problem, reference, rows)
        distance = (x**2).sum(dim=1) - 2 * matmul(query, x)  # but for the query's own length
        nearest = torch.cat([nearest, distance], dim=1)
        label = torch.cat([label, reference.target[variant, rows].expand(len(query), -1)], dim=1)
        best = nearest.topk(min(neighbours, nearest.shape[1]), dim=1, largest=False)
        nearest, label = best.values, label.gather(1, best.indices)
    counts = torch.zeros((len(query), classes), device=query.device)
    return counts.scatter_add(1, label, torch.ones_like(nearest)) / label.shape[1]
