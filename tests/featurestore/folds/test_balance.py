"""Balanced folds: against every assignment there is, and against scikit-learn's greedy ones."""

from dataclasses import replace
from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from featurestore.errors import FoldError
from featurestore.folds.assign import assign_folds, imbalances
from featurestore.folds.balance import GAP, empty_cells, imbalance, optimal_folds
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


@settings(deadline=None, max_examples=60)
@given(counts=tables(), k=st.integers(2, 3))
@example(counts=np.array([[0, 0, 2], [0, 0, 1], [0, 0, 1], [0, 1, 1]]), k=3)
def test_no_assignment_is_better(counts: np.ndarray, k: int):
    folds = optimal_folds(counts, k, start=np.arange(len(counts)) % k)
    every = (np.array(some) for some in product(range(k), repeat=len(counts)))
    empty, uneven = min(rank(counts, some, k) for some in every)
    ours = rank(counts, folds, k)
    assert ours[0] == empty
    assert ours[1] <= uneven * (1 + GAP) + 1e-9


def test_imbalance_is_the_mean_deviation_from_an_even_share():
    counts = np.array([[3, 0], [1, 2], [0, 2]])
    folds = np.array([0, 1, 1])
    # Class 0: 3 and 1 of an even 2; class 1: 0 and 4 of an even 2.
    assert imbalance(counts, folds, 2) == pytest.approx((0.5 + 0.5 + 1 + 1) / 4)
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
    return pa.table({"slide_id": slide, "x": x, "y": x, "label": label})


def per_fold(folds: pa.Table) -> dict[tuple[int, str], int]:
    pairs = zip(folds["fold"].to_pylist(), tiles()["label"].to_pylist(), strict=True)
    counts: dict[tuple[int, str], int] = {}
    for pair in pairs:
        counts[pair] = counts.get(pair, 0) + 1
    return counts


@pytest.mark.parametrize("seed", range(4))
def test_the_solver_is_never_worse_and_no_fold_lacks_a_class(seed: int):
    rules = replace(GROUPED, seed=seed)
    greedy = assign_folds(tiles(), replace(rules, allow_empty_class=True))
    folds = assign_folds(tiles(), replace(rules, balance="optimal"))
    assert len(per_fold(folds)) == 6
    said = imbalances(folds)
    assert said["optimal"] <= said["greedy"] == imbalances(greedy)["greedy"]


SCARCE = [[30, 5, 5], [15, 2, 16], [0, 8, 0], [0, 33, 27], [29, 22, 14], [11, 0, 22]]


def scarce() -> pa.Table:
    """Return six slides on which the greedy assignment leaves a fold without a class."""
    cells = [(f"s{g}", "abc"[c], n) for g, row in enumerate(SCARCE) for c, n in enumerate(row)]
    slide = [name for name, _, tiles in cells for _ in range(tiles)]
    label = [kind for _, kind, tiles in cells for _ in range(tiles)]
    x = list(range(len(slide)))
    return pa.table({"slide_id": slide, "x": x, "y": x, "label": label})


def test_a_fold_without_a_class_is_refused_with_what_to_do():
    with pytest.raises(FoldError, match="would have no tile of a class") as refusal:
        assign_folds(scarce(), GROUPED)
    assert " has no a" in str(refusal.value)
    for advice in ("balance=optimal", "allow_empty_class=true"):
        assert advice in str(refusal.value)


def test_what_the_refusal_advises_helps():
    for advice in ({"balance": "optimal"}, {"allow_empty_class": True}):
        folds = assign_folds(scarce(), replace(GROUPED, **advice))
        assert folds["fold"].null_count == 0
