"""Votes of the nearest tiles: the baseline that has no weights.

A tile's neighbours are taken from the tiles that a head would train on: the nearest ones by
Euclidean distance or by angle. Each has one vote, or 1 / distance of one, as in scikit-learn's
KNeighborsClassifier. Heads that differ in how neighbours vote alone look for them once.

A distance is made of squared lengths, whose difference loses its digits where embeddings lie far
from zero: distances are taken around their mean.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

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


@dataclass(frozen=True)
class Voting:
    """How neighbours vote.

    Parameters
    ----------
    neighbours
        How many.
    weights
        ``uniform``, or ``distance``: each vote is divided by the distance.
    metric
        ``euclidean``, or ``cosine``: 1 less the cosine of the angle.
    """

    neighbours: int
    weights: str = "uniform"
    metric: str = "euclidean"


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
            sums = _loss_sums(votes, target, problem.losses.class_weights[head])
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
    votings
        How each head's neighbours vote.
    """

    def __init__(self, problem: Problem, reference: Shard, votings: Sequence[Voting]) -> None:
        self.problem, self.reference, self.votings = problem, reference, votings
        self.votes: list[Tensor] = []

    def __iter__(self) -> Iterator[Epoch]:
        """Let the neighbours vote; yields no epoch."""
        shape = (self.problem.validation.local_rows, self.problem.classes)
        self.votes = [
            torch.zeros(shape, device=self.problem.validation.device) for _ in self.votings
        ]
        by_metric = {"cosine": self.problem}
        if any(voting.metric == "euclidean" for voting in self.votings):
            by_metric["euclidean"] = centred(self.problem)  # for all heads in one pass
        for heads in self._alike():
            self._vote(by_metric[self.votings[heads[0]].metric], heads)
        yield from ()

    def _alike(self) -> list[list[int]]:
        """Return the heads whose neighbours are the same, but for how many there are."""
        alike: dict[tuple[Any, ...], list[int]] = {}
        sets = self.problem.heads.training_sets.tolist()
        for head, (tiles, voting) in enumerate(zip(sets, self.votings, strict=True)):
            if self.problem.heads.fold[head] != DROPPED:
                alike.setdefault((*tiles, voting.metric), []).append(head)
        return list(alike.values())

    def _vote(self, placed: Problem, heads: list[int]) -> None:
        votings, shard = [self.votings[head] for head in heads], self.problem.validation
        problem = placed.select(torch.tensor(heads[:1]))
        voters = Voters(problem, self.reference, votings)
        validates = shard.fold[int(problem.heads.variant)] == int(problem.heads.fold)
        for start, section in shard.sections():
            stop = start + section.local_rows
            for rows in validates[start:stop].nonzero()[:, 0].split(QUERIES):
                assert isinstance(section.x, Tensor)
                x = section.x[rows.to(section.x.device)].to(shard.device)
                for head, shares in zip(heads, voters.shares(x), strict=True):
                    self.votes[head][start + rows] = shares

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


@dataclass(frozen=True)
class Voters:
    """The tiles that one head trains on, which vote on any others.

    Parameters
    ----------
    problem
        Of the one head; its standardizer, if it has one, moves embeddings as the metric wants.
    reference
        All tiles of all processes, in memory; those that the head trains on vote.
    votings
        Of one metric.
    """

    problem: Problem
    reference: Shard
    votings: Sequence[Voting]

    @classmethod
    def of(cls, problem: Problem, reference: Shard, votings: Sequence[Voting]) -> "Voters":
        """Return the voters of a head; distances that are not angles are taken near zero."""
        is_angle = votings[0].metric == "cosine"
        return cls(problem if is_angle else centred(problem), reference, votings)

    def shares(self, x: Tensor) -> list[Tensor]:
        """Return the shares of votes on some embeddings under each voting, each (rows, K)."""
        query = self._placed(x)
        index = self._nearest(query, max(voting.neighbours for voting in self.votings))
        target = self.reference.target[int(self.problem.heads.variant), index]
        weight = torch.ones_like(target, dtype=query.dtype)
        distance = weight
        if any(voting.weights == "distance" for voting in self.votings):
            distance = self._distance(query, index)
        shares = []
        for voting in self.votings:
            number = min(voting.neighbours, target.shape[1])
            votes = weight[:, :number]
            if voting.weights == "distance":
                votes = inverse(distance[:, :number])
            counts = torch.zeros((len(x), self.problem.classes), device=x.device)
            counts.scatter_add_(1, target[:, :number], votes)
            shares.append(counts / votes.sum(dim=1, keepdim=True))
        return shares

    def loss_sums(self, shares: Tensor, target: Tensor) -> Tensor:
        """Return the sums of the losses and weights of tiles with a label; double, shape (2,)."""
        return _loss_sums(shares, target, self.problem.losses.class_weights[0])

    def _placed(self, x: Tensor) -> Tensor:
        x, standardizer = x.float(), self.problem.standardizer
        if standardizer:
            x = (x - standardizer.mean[0]) / standardizer.scale[0]
        return functional.normalize(x, dim=1) if self.votings[0].metric == "cosine" else x

    def _rows(self, rows: Tensor) -> Tensor:
        x = self.reference.x
        assert isinstance(x, Tensor)
        return self._placed(x[rows.to(x.device)].to(rows.device))

    def _nearest(self, query: Tensor, neighbours: int) -> Tensor:
        """Return the rows of the nearest voters, the nearest first, shape (queries, k)."""
        nearest = torch.full((len(query), 0), torch.inf, device=query.device)
        index = torch.zeros((len(query), 0), dtype=torch.int64, device=query.device)
        voters = train_mask(self.reference, self.problem.heads)[0].nonzero()[:, 0]
        for rows in voters.split(REFERENCES):
            x = self._rows(rows)
            distance = (x**2).sum(dim=1) - 2 * matmul(query, x)  # but for the query's own length
            nearest = torch.cat([nearest, distance], dim=1)
            index = torch.cat([index, rows.expand(len(query), -1)], dim=1)
            best = nearest.topk(min(neighbours, nearest.shape[1]), dim=1, largest=False)
            nearest, index = best.values, index.gather(1, best.indices)
        return index

    def _distance(self, query: Tensor, index: Tensor) -> Tensor:
        """Return the distances of the nearest voters: of differences, that of a copy is 0."""
        columns = [(self._rows(rows) - query).square().sum(dim=1) for rows in index.T]
        square = torch.stack(columns, dim=1)
        return square / 2 if self.votings[0].metric == "cosine" else square.sqrt()


def centred(problem: Problem) -> Problem:
    """Return a problem whose standardizer moves embeddings near zero."""
    if problem.standardizer:
        return problem
    centre = fit_centre(problem.train, len(problem.heads), problem.reduce)
    return replace(problem, standardizer=centre)


def inverse(distance: Tensor) -> Tensor:
    """Return 1 / distance; of a tile that has copies, 1 for these and 0 for the others."""
    copies = distance == 0
    return torch.where(copies.any(dim=1, keepdim=True), copies.to(distance.dtype), 1 / distance)


def _loss_sums(votes: Tensor, target: Tensor, class_weights: Tensor) -> Tensor:
    weight = class_weights[target]
    of_target = votes.gather(1, target[:, None])[:, 0]
    losses = -(weight * of_target.clamp(min=LEAST).log())
    return torch.stack([part.sum(dtype=torch.float64) for part in (losses, weight)])
