"""Embeddings whose mean is far larger than they vary: no way to train loses its digits to it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_problems import make_heads, make_problem, of_rank, run, solve
from ranks import ranks
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from torch import Tensor

from train.engine.shard import Reduce, Shard
from train.engine.solvers.closed_form import ClosedFormTrainer
from train.engine.solvers.knn import NearestNeighbours, Voting
from train.engine.stream import Stream

ROWS, DIM, CLASSES = 900, 12, 3
HEADS = make_heads(fold=[0, 1], weight_decay=[0.1])
OVERLAP = 0.6  # standard deviations between classes: neighbours are of all of them


@pytest.fixture(params=[0, 100, 1000])
def far(request: pytest.FixtureRequest) -> Shard:
    """Overlapping classes, standard deviation 1, around a mean of so much in every dimension."""
    rng = np.random.default_rng(0)
    number = torch.arange(ROWS)
    target = torch.from_numpy(rng.integers(CLASSES, size=ROWS))
    x = OVERLAP * rng.normal(size=(CLASSES, DIM))[target] + rng.normal(size=(ROWS, DIM))
    return Shard(
        torch.from_numpy((x + request.param).astype(np.float32)), target[None], number[None] % 3,
        number // 30, torch.ones(ROWS), ROWS // 30, ROWS,
    )  # fmt: skip


def split(shard: Shard, head: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return embeddings in double, classes, and which tiles a head validates on."""
    held = shard.fold[0].numpy() == int(HEADS.fold[head])
    return shard.x.numpy().astype(float), shard.target[0].numpy(), held


def test_votes_are_those_of_doubles(far: Shard):
    votes = run(
        NearestNeighbours(make_problem(far, HEADS, classes=CLASSES), far, [Voting(5)] * len(HEADS))
    )
    for head in range(len(HEADS)):
        x, y, held = split(far, head)
        oracle = KNeighborsClassifier(5, algorithm="brute").fit(x[~held], y[~held])
        expected = oracle.predict_proba(x[held])
        different = (votes.by_head[head][held].numpy() != expected.astype(np.float32)).any(axis=1)
        assert different.sum() <= 1  # two neighbours as far as single precision can tell


@pytest.mark.parametrize("world", [2, 4])
def test_processes_and_streams_move_them_alike(far: Shard, world: int):
    problem = make_problem(far, HEADS, classes=CLASSES)
    expected = run(NearestNeighbours(problem, far, [Voting(5)] * len(HEADS))).by_head

    def streamed(share: Shard) -> Shard:
        rows = share.x.numpy()

        def gather(wanted: np.ndarray, out: np.ndarray) -> None:
            np.copyto(out, rows[wanted])

        stream = Stream(gather, np.arange(len(rows)), DIM, lambda x: x)
        return replace(share, x=stream)

    def work(share: Shard, reduce: Reduce) -> tuple[list[Tensor], np.ndarray | None]:
        local = of_rank(problem, streamed(share), reduce)
        return run(NearestNeighbours(local, far, [Voting(5)] * len(HEADS))).by_head, share.positions

    for by_head, positions in ranks(far, world, work):
        for votes, expected_votes in zip(by_head, expected, strict=True):
            assert torch.equal(votes, expected_votes[positions])


@pytest.mark.parametrize("zscore", [False, True])
@pytest.mark.parametrize("form", ["ridge", "lda", "prototype"])
def test_closed_forms_are_those_of_doubles(far: Shard, form: str, zscore: bool):
    problem = make_problem(far, HEADS, zscore=zscore, classes=CLASSES)
    result = run(ClosedFormTrainer(problem, form))
    for head in range(len(HEADS)):
        x, y, held = split(far, head)
        if zscore:
            x = (x - x[~held].mean(axis=0)) / x[~held].std(axis=0)
        oracle = {
            "ridge": RidgeClassifier(alpha=0.1 * (~held).sum(), class_weight="balanced"),
            "lda": LinearDiscriminantAnalysis("lsqr", 0.1, np.full(CLASSES, 1 / CLASSES)),
            "prototype": NearestCentroid(),
        }[form].fit(x[~held], y[~held])
        logits = result.weights.select(torch.tensor([head])).logits(far.x)[0]
        assert (logits.argmax(dim=0).numpy() != oracle.predict(x)).sum() <= 2


def test_lbfgs_finds_the_optimum_of_doubles(far: Shard):
    problem = make_problem(far, HEADS, classes=CLASSES)
    result = solve(problem)
    assert result.diagnostics["converged"].all()
    for head in range(len(HEADS)):
        x, y, held = split(far, head)
        weight = problem.losses.class_weights[head].double().numpy()[y[~held]]
        model = LogisticRegression(C=1 / (0.1 * weight.sum()), tol=1e-10, max_iter=5000)
        centred = x - x.mean(axis=0)
        model.fit(centred[~held], y[~held], weight)
        logits = result.weights.select(torch.tensor([head])).logits(far.x)[0]
        assert (logits.argmax(dim=0).numpy() != model.predict(centred)).sum() <= 2
