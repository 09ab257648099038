"""Heads by closed forms against scikit-learn, for folds and penalties at once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ranks import ranks
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.preprocessing import StandardScaler
from solutions import DATA, same, tiles
from torch import Tensor

from train.engine.heads import HeadSpecs, balanced_class_weights, train_mask
from train.engine.losses import HeadLosses
from train.engine.shard import DROPPED, Reduce, Shard
from train.engine.solvers.closed_form import CLOSED, solve_closed_form
from train.engine.solvers.gram_matrix import gram_matrices, strata
from train.engine.solvers.knn import knn_predict
from train.engine.standardizer import fit_standardizer

FOLDS, DECAYS = [0, 1, 2, 2, DROPPED], [0.1, 0.01, 0.3, 0.02, 0.5]
FRACTIONS = [1.0, 1.0, 0.6, 1.0, 1.0]


@pytest.fixture(scope="module", params=DATA)
def data(request: pytest.FixtureRequest) -> tuple[Shard, int]:
    """A data set with unlike scales and a mean far from zero; slides in some random order."""
    shard, classes = tiles(request.param)
    draw = np.random.default_rng(0).permutation(shard.slides)[shard.slide.numpy()] + 1
    scale = torch.linspace(0.5, 3, shard.x.shape[1])
    x, place = shard.x * scale + 2, torch.from_numpy(draw / shard.slides).float()
    return replace(shard, x=x, draw=place), classes


def pack() -> HeadSpecs:
    none = torch.zeros(len(FOLDS))
    return HeadSpecs(none.long(), torch.tensor(FOLDS), torch.tensor(FRACTIONS), none,
                 torch.tensor(DECAYS), none)  # fmt: skip


def rival(name: str, decay: float, rows: int, classes: int):
    return {
        "ridge": RidgeClassifier(alpha=decay * rows, class_weight="balanced"),
        "lda": LinearDiscriminantAnalysis(
            solver="lsqr", shrinkage=decay, priors=np.full(classes, 1 / classes)
        ),
        "prototype": NearestCentroid(),
    }[name]


@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_")
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("name", CLOSED)
def test_it_is_scikit_learns(data: tuple[Shard, int], name: str, normalize: bool):
    shard, classes = data
    heads = pack()
    losses = HeadLosses(balanced_class_weights(shard, heads, classes, same), heads.label_smoothing)
    standardizer = fit_standardizer(shard, heads, same) if normalize else None
    sums = gram_matrices(shard, heads, classes, same, second=name != "prototype")
    found = solve_closed_form(name, sums, heads, losses, standardizer)
    y = shard.target[0].numpy()
    for head, decay in enumerate(DECAYS):
        own = train_mask(shard, heads.select(torch.tensor([head])))[0].numpy()
        x = shard.x.numpy().astype(float)
        x = StandardScaler().fit(x[own]).transform(x) if normalize else x
        theirs = rival(name, decay, own.sum(), classes).fit(x[own], y[own])
        logits = found.select(torch.tensor([head])).logits(shard.x)[0].T
        np.testing.assert_array_equal(logits.argmax(dim=1).numpy(), theirs.predict(x))
        if name == "ridge":
            ours = logits if classes > 2 else logits[:, 1]
            np.testing.assert_allclose(ours, theirs.decision_function(x), rtol=1e-3, atol=1e-4)
        if name == "lda":
            shares = logits.double().softmax(dim=1)
            np.testing.assert_allclose(shares, theirs.predict_proba(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("name", CLOSED)
def test_processes_find_the_same_heads(data: tuple[Shard, int], name: str, world: int):
    shard, classes = data
    heads = pack()
    losses = HeadLosses(balanced_class_weights(shard, heads, classes, same), heads.label_smoothing)

    def work(own: Shard, reduce: Reduce) -> Tensor:
        return solve_closed_form(
            name, gram_matrices(own, heads, classes, reduce), heads, losses
        ).logits(shard.x)

    expected = work(shard, same)
    for found in ranks(shard, world, work):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_each_head_is_a_sum_of_cells(data: tuple[Shard, int]):
    """Every tile that a head trains on is in one of its cells, once; no cell is nobody's."""
    shard, classes = data
    heads = pack()
    found = gram_matrices(shard, heads, classes, same, second=False)
    used = torch.zeros(len(found.cells), dtype=torch.bool)
    for head in range(len(FOLDS)):
        own = found.seen(0, FOLDS[head], FRACTIONS[head])
        used |= own
        counts, sums = found.by_class(own, classes)
        mine = train_mask(shard, heads.select(torch.tensor([head])))[0]
        np.testing.assert_array_equal(
            counts, np.bincount(shard.target[0, mine].numpy(), minlength=classes)
        )
        np.testing.assert_allclose(
            sums.sum(dim=0) + counts.sum() * found.centre, shard.x[mine].double().sum(dim=0),
            rtol=1e-5,
        )  # fmt: skip
    assert used.all()
    assert len(strata(heads, classes)[0]) == len(found.cells)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("neighbours", [1, 7])
def test_votes_are_scikit_learns(data: tuple[Shard, int], neighbours: int, normalize: bool):
    shard, classes = data
    heads = pack()
    losses = HeadLosses(balanced_class_weights(shard, heads, classes, same), heads.label_smoothing)
    standardizer = fit_standardizer(shard, heads, same) if normalize else None
    _, cube, shares = knn_predict(shard, shard, heads, losses, same, neighbours, standardizer)
    y = shard.target[0].numpy()
    for head, fold in enumerate(FOLDS):
        held = shard.fold[0].numpy() == fold
        assert int(cube[head].sum()) == held.sum()
        if fold == DROPPED:
            continue
        own = train_mask(shard, heads.select(torch.tensor([head])))[0].numpy()
        x = shard.x.numpy().astype(float)
        x = StandardScaler().fit(x[own]).transform(x) if normalize else x
        theirs = KNeighborsClassifier(neighbours).fit(x[own], y[own]).predict_proba(x[held])
        np.testing.assert_allclose(shares[head][held], theirs, atol=1e-6)
        np.testing.assert_array_equal(
            cube[head].sum(dim=0).diagonal().sum(), (theirs.argmax(axis=1) == y[held]).sum()
        )
