"""Which group is on which side: against every division there is, and against counting."""

from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import ConfigError, SplitError
from featurestore.folds.extend import NEW
from featurestore.spec.split_rules import SplitRules
from featurestore.splits.assign import TEST, TRAIN, assign_sides, groups_by_side, tiles_by_side
from featurestore.splits.balance import balance, shortcomings
from featurestore.splits.cohort import Cohort


def cohort(counts: np.ndarray) -> Cohort:
    """Return groups with some tiles of each stratum; one that has none has a dropped tile."""
    names = pa.array([f"g{number}" for number in range(len(counts))])
    strata = [(f"s{number}",) for number in range(counts.shape[1])]
    slides = pa.table({"group": names, "slide_id": names})
    return Cohort(names, strata, counts, (counts.sum(axis=1) == 0).astype(np.int64), slides)


def nobody(counts: np.ndarray) -> np.ndarray:
    return np.full(len(counts), NEW)


@st.composite
def tables(draw: st.DrawFn) -> np.ndarray:
    """Draw tiles of 2 to 6 groups and 1 to 3 strata, of which two groups at least have some."""
    groups, strata = draw(st.integers(2, 7)), draw(st.integers(1, 3))
    row = st.lists(st.integers(0, 9), min_size=strata, max_size=strata)
    counts = np.array(draw(st.lists(row, min_size=groups, max_size=groups)))
    counts[:2, 0] += 1
    return counts[:, counts.sum(axis=0) > 0]


SHARES = st.sampled_from([0.05, 0.2, 0.5, 0.8])


def lacking(counts: np.ndarray, sides: np.ndarray) -> int:
    """Return how many strata have no group on one side."""
    return int((groups_by_side(cohort(counts), sides) == 0).sum())


def distance(counts: np.ndarray, sides: np.ndarray, share: float) -> float:
    """Return how far the shares are, in what `featurestore.folds.balance` keeps small."""
    total = np.column_stack([counts, counts.sum(axis=1)])
    shares = total[sides == TEST].sum(axis=0) / total.sum(axis=0)
    weight = np.append(np.full(counts.shape[1], 0.5 / counts.shape[1]), 0.5)
    return float((weight * np.square(shares - share)).sum())


@settings(deadline=None, max_examples=examples(60))
@given(counts=tables(), share=SHARES, seed=st.integers(0, 3))
def test_no_division_has_more_strata_on_both_sides_and_no_move_is_nearer(
    counts: np.ndarray, share: float, seed: int
):
    rules = SplitRules(share, seed=seed)
    sides = assign_sides(cohort(counts), nobody(counts), rules)
    assert sides.tolist() == assign_sides(cohort(counts), nobody(counts), rules).tolist()
    assert set(sides[counts.sum(axis=1) > 0]) == {TRAIN, TEST}
    every = [np.array(one) for one in product((TRAIN, TEST), repeat=len(counts))]
    both = [one for one in every if tiles_by_side(cohort(counts), one).sum(axis=1).all()]
    least = min(lacking(counts, one) for one in both)
    assert lacking(counts, sides) == least
    moved = [one for one in both if (one != sides).sum() == 1 and lacking(counts, one) == least]
    nearest = min((distance(counts, one, share) for one in moved), default=np.inf)
    assert distance(counts, sides, share) <= nearest + 1e-9 or (sides == TEST).sum() in (
        1, len(sides) - 1,
    )  # fmt: skip


@settings(deadline=None, max_examples=examples(50))
@given(counts=tables(), share=SHARES, data=st.data())
def test_what_had_a_side_keeps_it(counts: np.ndarray, share: float, data: st.DataObject):
    side = st.sampled_from([NEW, TRAIN, TEST])
    known = np.array(data.draw(st.lists(side, min_size=len(counts), max_size=len(counts))))
    known[:2] = (TRAIN, TEST)
    sides = assign_sides(cohort(counts), known, SplitRules(share))
    assert (sides[known != NEW] == known[known != NEW]).all()
    assert set(sides) == {TRAIN, TEST}


def test_many_small_groups_come_as_near_as_a_tenth_of_a_percent():
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.dirichlet(np.ones(5), 400) * 200)
    sides = assign_sides(cohort(counts), nobody(counts), SplitRules(0.2))
    tiles = tiles_by_side(cohort(counts), sides)
    assert np.abs(tiles[TEST] / tiles.sum(axis=0) - 0.2).max() < 0.001


def test_a_stratum_in_one_group_and_a_far_share_are_told():
    counts = np.array([[90, 0, 5], [0, 8, 5]])
    rules = SplitRules(0.2)
    sides = assign_sides(cohort(counts), nobody(counts), rules)
    rows = balance(cohort(counts), sides, rules)
    assert rows[0] == {
        "stratum": "all", "train": 95, "test": 13, "share": 13 / 108, "train_groups": 1,
        "test_groups": 1,
    }  # fmt: skip
    one_sided, far = shortcomings(rows, rules)
    assert "2 of 3 strata are on one side, in one group alone: s0 (train); s1 (test)" in one_sided
    assert "12.0% of the tiles, not 20.0%" in far


def test_all_of_a_stratum_on_one_side_is_told():
    """Both groups of s1 were trained on before it was in either."""
    counts = np.array([[5, 5], [5, 5], [5, 0]])
    known = np.array([TRAIN, TRAIN, TEST])
    sides = assign_sides(cohort(counts), known, SplitRules(0.2))
    [line] = shortcomings(balance(cohort(counts), sides, SplitRules(0.2)), SplitRules(0.2))
    assert line == "1 of 2 strata are on one side, with all their groups: s1 (train)"


@pytest.mark.parametrize(
    ("counts", "known", "words"),
    [
        ([[3], [0]], [NEW, NEW], ["One slide_id cannot be on two sides", "slide_id g0"]),
        ([[3], [3]], [TRAIN, TRAIN], ["The test part would have no tile", "--new"]),
        ([[3], [3]], [TEST, TEST], ["The train part would have no tile"]),
    ],
)
def test_what_makes_no_two_sides_is_refused(counts: list, known: list, words: list[str]):
    with pytest.raises(SplitError) as refused:
        assign_sides(cohort(np.array(counts)), np.array(known), SplitRules())
    assert all(word in str(refused.value) for word in words)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (SplitRules(0.0), ["--test is out of bounds", "(0, 1)"]),
        (SplitRules(1.0), ["--test=1.0"]),
        (SplitRules(float("nan")), ["--test=nan"]),
        (SplitRules(seed=-1), ["--seed is out of bounds"]),
        (SplitRules(group="organ", stratify=("organ",)), ["'organ' cannot be a stratum: it is"]),
        (SplitRules(stratify=("label", "label")), ["'label' cannot be a stratum"]),
    ],
)
def test_rules_that_make_no_split_are_refused(rules: SplitRules, words: list[str]):
    with pytest.raises(ConfigError) as refused:
        rules.check()
    assert all(word in str(refused.value) for word in words)
