"""Fold assignment: scikit-learn's own folds, groups kept together, rare classes, refusals."""

import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from folded import assigned, by_tile
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from featurestore.errors import FoldError
from featurestore.spec.rules import FoldRules
from featurestore.views.folds import check_fold


def tiles(labels: list[str], groups: list[str], index: dict[str, int] | None = None) -> pa.Table:
    """Return a tile for each label; classes are numbered by their names, or as ``index`` says."""
    index = index or {name: n for n, name in enumerate(sorted(set(labels)))}
    return pa.table(
        {
            "slide_id": groups, "x": list(range(len(labels))), "y": [0] * len(labels),
            "label": labels, "target": [index[label] for label in labels],
        }
    )  # fmt: skip


def folds_of(table: pa.Table, rules: FoldRules) -> list[int | None]:
    return by_tile(table, assigned(table, rules), rules)


LABELS = ["a", "b", "a", "c", "b", "a", "c", "b"] * 6
GROUPS = [f"s{n // 4:02d}" for n in range(48)]
GROUPED = FoldRules("stratified_group", k=3)


@pytest.mark.parametrize("strategy", ["stratified", "stratified_group"])
def test_folds_are_scikit_learns(strategy: str):
    rules = FoldRules(kfold_strategy=strategy, k=4, seed=3)
    folds = np.array(folds_of(tiles(LABELS, GROUPS), rules))
    grouped = strategy == "stratified_group"
    peer = (StratifiedGroupKFold if grouped else StratifiedKFold)(4, shuffle=True, random_state=3)
    for number, (_, held) in enumerate(
        peer.split(np.zeros(48), LABELS, GROUPS if grouped else None)
    ):
        assert np.flatnonzero(folds == number).tolist() == held.tolist()


def scikit_learns(target: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    folds = np.full(len(target), -1)
    splitter = StratifiedGroupKFold(3, shuffle=True, random_state=seed)
    for number, (_, held) in enumerate(splitter.split(target, target, groups)):
        folds[held] = number
    return folds


@pytest.mark.slow
@pytest.mark.parametrize("kind", [str, int])
def test_ties_are_broken_by_class_index_and_group_whatever_the_order_of_rows(kind: type):
    """Few tiles in few groups: many assignments are equally even, and sums round otherwise."""
    rng = np.random.default_rng(0)
    rules = FoldRules("stratified_group", k=3, allow_empty_class=True)
    for seed in range(60):
        classes = int(rng.integers(2, 6))
        index = dict(zip("edcba", rng.permutation(classes).tolist(), strict=False))
        labels = rng.choice(list(index), 40)
        groups = rng.integers(0, 14, 40)
        held_by = {name: len(set(groups[labels == name])) for name in set(labels)}
        if min(held_by.values()) < 3:
            continue  # a rare class, which scikit-learn does not know of
        table = tiles(labels.tolist(), [kind(g) for g in groups], index)
        expected = scikit_learns(np.array(table["target"]), np.array(table["slide_id"]), seed)
        if set(expected) != {0, 1, 2}:
            continue  # refused
        for order in (np.arange(40), rng.permutation(40)):
            folds = folds_of(table.take(pa.array(order)), replace(rules, seed=seed))
            assert folds == expected[order].tolist()


@settings(deadline=None, max_examples=40)
@given(
    labels=st.lists(st.sampled_from("abc"), min_size=12, max_size=60),
    per=st.integers(1, 5),
    seed=st.integers(0, 5),
)
def test_no_group_stands_in_two_folds(labels: list[str], per: int, seed: int):
    groups = [f"s{n // per:02d}" for n in range(len(labels))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            folds = folds_of(tiles(labels, groups), FoldRules("stratified_group", k=2, seed=seed))
        except FoldError:
            return  # too few groups: refused, never divided
    kept = [(g, f) for g, f in zip(groups, folds, strict=True) if f is not None]
    assert set(Counter(group for group, _ in set(kept)).values()) <= {1}


def test_same_seed_same_folds_another_seed_others():
    def folds(seed: int) -> list[int | None]:
        return folds_of(tiles(LABELS, GROUPS), FoldRules(k=4, seed=seed))

    assert folds(0) == folds(0) != folds(1)


@pytest.mark.parametrize(("copies", "rare"), [(2, {"z": 2}), (3, {})])
def test_class_in_fewer_tiles_than_folds_is_rare(copies: int, rare: dict[str, int]):
    """Exactly k is enough."""
    labels = ["a"] * 9 + ["z"] * copies
    folds = assigned(tiles(labels, ["s"] * len(labels)), FoldRules(k=3))
    assert folds.rare == rare
    assert len(folds.rows) == len(labels) - sum(rare.values())


def test_class_in_fewer_groups_than_folds_is_rare_however_many_its_tiles():
    labels = ["a"] * 12 + ["z"] * 8
    groups = [f"s{n // 2}" for n in range(12)] + ["s0"] * 4 + ["s1"] * 4
    table = tiles(labels, groups)
    folds = assigned(table, GROUPED)
    assert folds.rare == {"z": 2}
    assert by_tile(table, folds, GROUPED)[12:] == [None] * 8


def test_too_few_groups_are_refused_with_what_there_is():
    with pytest.raises(FoldError) as refusal:
        assigned(tiles(["a"] * 9, ["s", "t", "u"] * 3), replace(GROUPED, k=5))
    assert "5 folds cannot be assigned" in str(refusal.value)
    assert "a in 3" in str(refusal.value)
    assert "at most 3" in str(refusal.value)


def test_a_fold_that_is_not_there_is_refused():
    check_fold(1, [0, 1])
    with pytest.raises(FoldError, match="Fold 2 does not exist"):
        check_fold(2, [0, 1])
