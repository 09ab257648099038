"""Balanced folds: against every exchange there is, and against scikit-learn's greedy ones."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pyarrow as pa
import pytest
from folded import assigned, by_tile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from featurestore.errors import FoldError
from featurestore.folds.assign import Folds
from featurestore.folds.balance import empty_cells, exchanged, imbalance, optimal_folds
from featurestore.spec.rules import FoldRules

GROUPED = FoldRules("stratified_group", k=3)


def rank(counts: np.ndarray, folds: np.ndarray, k: int) -> tuple[int, float]:
    return len(empty_cells(counts, folds, k)), imbalance(counts, folds, k)


@st.composite
def tables(draw: st.DrawFn) -> np.ndarray:
    shape = draw(st.tuples(st.integers(2, 6), st.integers(1, 3)))
    cells = st.integers(0, 12)
    return np.array(draw(st.lists(st.lists(cells, min_size=shape[1], max_size=shape[1]),
                                  min_size=shape[0], max_size=shape[0])))  # fmt: skip


def neighbours(folds: np.ndarray, k: int) -> Iterator[np.ndarray]:
    """Yield the assignments that are one move of a group, or one swap of two, away."""
    for group, fold in product(range(len(folds)), range(k)):
        moved = folds.copy()
        moved[group] = fold
        yield moved
    for one, other in combinations(range(len(folds)), 2):
        swapped = folds.copy()
        swapped[[one, other]] = folds[[other, one]]
        yield swapped


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(counts=tables(), k=st.integers(2, 3))
@example(counts=np.array([[0, 0, 2], [0, 0, 1], [0, 0, 1], [0, 1, 1]]), k=3)
def test_no_move_and_no_swap_is_better_and_no_assignment_has_fewer_empty_cells(
    counts: np.ndarray, k: int
):
    folds = optimal_folds(counts, k, start=np.arange(len(counts)) % k)
    empty, uneven = rank(counts, folds, k)
    every = (np.array(some) for some in product(range(k), repeat=len(counts)))
    assert empty == min(len(empty_cells(counts, some, k)) for some in every)
    assert (empty, uneven - 1e-6) <= min(rank(counts, some, k) for some in neighbours(folds, k))


@settings(deadline=None, max_examples=30)
@given(counts=tables(), k=st.integers(2, 4), first=st.integers(0, 3))
def test_exchanges_alone_end_where_no_move_and_no_swap_is_better(
    counts: np.ndarray, k: int, first: int
):
    """Above a number of groups nothing else is done, wherever they start."""
    start = np.minimum(np.arange(len(counts)) % k, first)
    folds = exchanged(counts, k, start)
    empty, uneven = rank(counts, folds, k)
    assert (empty, uneven - 1e-6) <= min(rank(counts, some, k) for some in neighbours(folds, k))
    assert exchanged(counts, k, start).tolist() == folds.tolist()


def unequal(groups: int, seed: int) -> np.ndarray:
    """Return groups of three classes whose sizes differ by orders of magnitude."""
    rng = np.random.default_rng(seed)
    sizes = (rng.pareto(1.2, groups) * 20 + 5).astype(int)
    mixes = rng.dirichlet([0.5] * 3, groups)
    return np.array([rng.multinomial(size, mix) for size, mix in zip(sizes, mixes, strict=True)])


def smallest(counts: np.ndarray, folds: np.ndarray, k: int) -> int:
    return int(np.bincount(folds, counts.sum(axis=1), minlength=k).min())


@pytest.mark.parametrize("seed", range(4))
def test_the_smallest_fold_is_no_smaller_than_the_greedy_one(seed: int):
    """Tiles are weighed as a whole too, not class by class alone."""
    counts, k = unequal(20, seed), 4
    slides = np.repeat(np.arange(20), counts.sum(axis=1))
    labels = np.concatenate([np.repeat(np.arange(3), row) for row in counts])
    greedy = np.zeros(20, dtype=np.int64)
    splitter = StratifiedGroupKFold(k, shuffle=True, random_state=seed)
    for fold, (_, held) in enumerate(splitter.split(labels, labels, slides)):
        greedy[slides[held]] = fold
    folds = optimal_folds(counts, k, greedy)
    assert smallest(counts, folds, k) >= 0.98 * smallest(counts, greedy, k)


def test_imbalance_is_the_root_mean_square_deviation_from_an_even_share():
    counts = np.array([[3, 0], [1, 2], [0, 2]])
    folds = np.array([0, 1, 1])
    # Class 0: 3 and 1 of an even 2; class 1: 0 and 4 of an even 2; all: 3 and 5 of an even 4.
    by_class, in_all = (0.25 + 0.25 + 1 + 1) / 4, (0.0625 + 0.0625) / 2
    assert imbalance(counts, folds, 2) == pytest.approx(((by_class + in_all) / 2) ** 0.5)
    assert empty_cells(counts, folds, 2) == [(0, 1)]


def test_a_start_that_is_as_good_is_kept():
    counts = np.array([[4], [4], [4], [4]])
    start = np.array([1, 0, 0, 1])
    assert optimal_folds(counts, 2, start).tolist() == start.tolist()


HUGE = [("a", 300, 40), ("b", 20, 260), ("c", 280, 0), ("d", 10, 30), ("e", 15, 200), ("f", 240, 5)]


def tiles() -> pa.Table:
    """Return six slides of very unequal mix; few of them have the rarer class."""
    slide = [name for name, fat, nerve in HUGE for _ in range(fat + nerve)]
    label = [kind for _, fat, nerve in HUGE for kind in ["fat"] * fat + ["nerve"] * nerve]
    x = list(range(len(slide)))
    target = [sorted(set(label)).index(name) for name in label]
    return pa.table({"slide_id": slide, "x": x, "y": x, "label": label, "target": target})


def per_fold(folds: Folds) -> dict[tuple[int | None, str], int]:
    pairs = zip(by_tile(tiles(), folds, GROUPED), tiles()["label"].to_pylist(), strict=True)
    counts: dict[tuple[int | None, str], int] = {}
    for pair in pairs:
        counts[pair] = counts.get(pair, 0) + 1
    return counts


@pytest.mark.parametrize("seed", range(4))
def test_the_solver_is_never_worse_and_no_fold_lacks_a_class(seed: int):
    rules = replace(GROUPED, seed=seed)
    greedy = assigned(tiles(), replace(rules, allow_empty_class=True))
    folds = assigned(tiles(), replace(rules, balance="optimal"))
    assert len(per_fold(folds)) == 6
    said = folds.imbalance
    assert said["optimal"] <= said["greedy"] == greedy.imbalance["greedy"]


SCARCE = [[30, 5, 5], [15, 2, 16], [0, 8, 0], [0, 33, 27], [29, 22, 14], [11, 0, 22]]


def scarce() -> pa.Table:
    """Return six slides on which the greedy assignment leaves a fold without a class."""
    cells = [(f"s{g}", "abc"[c], n) for g, row in enumerate(SCARCE) for c, n in enumerate(row)]
    slide = [name for name, _, tiles in cells for _ in range(tiles)]
    label = [kind for _, kind, tiles in cells for _ in range(tiles)]
    x = list(range(len(slide)))
    target = [sorted(set(label)).index(name) for name in label]
    return pa.table({"slide_id": slide, "x": x, "y": x, "label": label, "target": target})


def test_a_fold_without_a_class_is_refused_with_what_to_do():
    with pytest.raises(FoldError, match="would have no tile of a class") as refusal:
        assigned(scarce(), GROUPED)
    assert " has no a" in str(refusal.value)
    for advice in ("balance=optimal", "allow_empty_class=true"):
        assert advice in str(refusal.value)


def test_what_the_refusal_advises_helps():
    for advice in ({"balance": "optimal"}, {"allow_empty_class": True}):
        folds = assigned(scarce(), replace(GROUPED, **advice))
        assert len(folds.rows) == len(SCARCE)
