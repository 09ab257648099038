"""Extension of folds: what had one keeps it, what is new evens out the classes."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from folded import assigned, by_tile, units_of
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from featurestore.errors import FoldError
from featurestore.folds.balance import exchanged, imbalance
from featurestore.folds.extend import NEW, extended_groups, extended_tiles
from featurestore.folds.known import known_folds
from featurestore.spec.rules import FoldRules

GROUPED = FoldRules("stratified_group", k=3, allow_empty_class=True)


def criterion(counts: np.ndarray, folds: np.ndarray, k: int) -> float:
    """Return what StratifiedGroupKFold keeps small, for the groups that have a fold."""
    cells = np.zeros((k, counts.shape[1]))
    np.add.at(cells, folds[folds != NEW], counts[folds != NEW])
    return float(np.std(cells / counts.sum(axis=0), axis=0).mean())


@st.composite
def grown(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Draw counts of groups and classes, the folds that some groups had, and how many there are."""
    groups, classes, k = draw(st.integers(1, 9)), draw(st.integers(1, 3)), draw(st.integers(2, 4))
    cell = st.integers(0, 9)
    counts = draw(st.lists(st.tuples(*[cell] * classes), min_size=groups, max_size=groups))
    known = draw(st.lists(st.integers(NEW, k - 1), min_size=groups, max_size=groups))
    return np.array(counts) + 1, np.array(known), k


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(case=grown(), seed=st.integers(0, 3))
def test_extending_never_moves_a_group_and_ends_where_no_new_one_would_go_better(case, seed: int):
    counts, known, k = case
    folds = extended_groups(counts, known, k, seed)
    assert (folds[known != NEW] == known[known != NEW]).all()
    assert set(folds.tolist()) <= set(range(k))
    assert extended_groups(counts, known, k, seed).tolist() == folds.tolist()
    new = np.flatnonzero(known == NEW)
    if len(new) == 1:  # a greedy step is the best that there is
        others = (np.where(np.arange(len(known)) == new[0], fold, known) for fold in range(k))
        best = min(criterion(counts, some, k) for some in others)
        assert criterion(counts, folds, k) == pytest.approx(best)
    even = exchanged(counts, k, folds, free=known == NEW)
    assert (even[known != NEW] == known[known != NEW]).all()
    assert imbalance(counts, even, k) <= imbalance(counts, folds, k) + 1e-9


def test_where_nothing_is_known_folds_are_as_even_as_scikit_learns():
    """Ties are broken by rounding there: of unlike groups there are few."""
    rng = np.random.default_rng(0)
    for seed in range(5):
        counts = rng.integers(1, 200, (30, 4))
        labels = np.concatenate([np.repeat(np.arange(4), row) for row in counts])
        groups = np.repeat(np.arange(30), counts.sum(axis=1))
        folds = np.zeros(30, dtype=int)
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        for fold, (_, held) in enumerate(splitter.split(labels, labels, groups)):
            folds[groups[held]] = fold
        ours = extended_groups(counts, np.full(30, NEW), 5, seed)
        assert imbalance(counts, ours, 5) == pytest.approx(imbalance(counts, folds, 5), rel=0.2)


@settings(deadline=None, max_examples=80)
@given(
    labels=st.lists(st.integers(0, 2), min_size=1, max_size=30),
    known=st.lists(st.integers(NEW, 3), min_size=30, max_size=30),
    seed=st.integers(0, 3),
)
def test_new_tiles_fill_up_the_folds_of_their_label(labels: list[int], known: list[int], seed: int):
    """No other choice of folds for the new tiles leaves the numbers of a label more alike."""
    of, had = np.array(labels), np.array(known[: len(labels)])
    folds = extended_tiles(of, had, 4, seed)
    assert (folds[had != NEW] == had[had != NEW]).all()
    for label in set(labels):
        before = Counter(dict.fromkeys(range(4), 0))
        before.update(had[(of == label) & (had != NEW)].tolist())
        for _ in range(int(((of == label) & (had == NEW)).sum())):  # into the emptiest, one by one
            before[min(before, key=before.__getitem__)] += 1
        after = np.bincount(folds[of == label], minlength=4)
        assert sorted(before.values()) == sorted(after.tolist())


def cohort(slides: dict[str, tuple[str, str]]) -> pa.Table:
    """Return tiles: by slide, its patient and the label of each of its tiles."""
    rows = [(slide, patient, x, label) for slide, (patient, labels) in slides.items()
            for x, label in enumerate(labels)]  # fmt: skip
    columns = zip(*rows, strict=True)
    table = pa.table(dict(zip(["slide_id", "patient_id", "x", "label"], columns, strict=True)))
    target = ["abc".index(label) for label in table["label"].to_pylist()]
    return table.append_column("y", [[0] * len(rows)]).append_column("target", [target])


SLIDES = {f"s{n}": (f"p{n // 2}", "aabb" if n % 2 else "aab") for n in range(12)}
BY_PATIENT = replace(GROUPED, kfold_group="patient_id")


def extended(slides: dict, rules: FoldRules, earlier: pa.Table):
    table = cohort(slides)
    known = known_folds(units_of(table, rules), earlier, rules)
    return assigned(table, rules, known)


@pytest.mark.parametrize("rules", [GROUPED, BY_PATIENT, FoldRules(k=3)])
def test_what_had_a_fold_keeps_it_when_slides_join_leave_and_are_corrected(rules: FoldRules):
    before = assigned(cohort(SLIDES), rules)
    fold_of = by_slide(before.rows)
    now = {**SLIDES, "s1": ("p0", "abbb"), "t": ("q", "aaab"), "u": ("p3", "bb")}
    del now["s4"]
    after = extended(now, rules, before.rows)
    folds = by_slide(after.rows)
    if rules.kfold_strategy == "stratified_group":
        assert {slide: folds[slide] for slide in fold_of if slide != "s4"} == {
            slide: fold for slide, fold in fold_of.items() if slide != "s4"
        }
    if rules.kfold_group == "patient_id":
        assert folds["u"] == folds["s6"]  # another slide of a patient that is known
        assert (after.known, after.new) == (6, 1)
    if rules.kfold_strategy == "stratified":
        keys = ["slide_id", "x", "y"]
        joined = before.rows.join(after.rows, keys, right_suffix="_now").drop_null()
        assert joined["fold"] == joined["fold_now"]
        assert len(joined) == len(before.rows) - 3  # without s4


def by_slide(rows: pa.Table) -> dict[str, int]:
    return dict(zip(rows["slide_id"].to_pylist(), rows["fold"].to_pylist(), strict=True))


def test_a_class_that_is_rare_no_more_gets_the_folds_of_its_groups():
    few = {**SLIDES, "s0": ("p0", "aabc"), "s1": ("p0", "aabbc")}
    before = assigned(cohort(few), GROUPED)
    assert before.rare == {"c": 2}
    more = {**few, "s2": ("p1", "aabc"), "t": ("q", "cc")}
    after = extended(more, GROUPED, before.rows)
    assert after.rare == {}
    folds = by_slide(after.rows)
    assert {slide: folds[slide] for slide in SLIDES} == by_slide(before.rows)
    assert None not in by_tile(cohort(more), after, GROUPED)


def test_patients_that_become_one_across_folds_are_refused_by_name():
    before = assigned(cohort(SLIDES), BY_PATIENT)
    folds = by_slide(before.rows)
    other = next(slide for slide in SLIDES if folds[slide] != folds["s0"])
    merged = {**SLIDES, other: ("p0", "aab")}
    with pytest.raises(FoldError, match="patient_id would have to move") as refusal:
        extended(merged, BY_PATIENT, before.rows)
    for words in ("patient_id p0", f"slide_id {other} was in fold {folds[other]}", "folds=new"):
        assert words in str(refusal.value)


def test_folds_that_tiles_had_are_those_of_slides():
    """As earlier versions have logged them, whatever the groups are."""
    before = assigned(cohort(SLIDES), BY_PATIENT)
    tiles = before.rows.select(["slide_id", "fold"])
    assert extended(SLIDES, BY_PATIENT, tiles).rows == before.rows
