"""Each view against its plain-SQL twin and against a slow oracle, over generated tiles."""

from typing import Any

import oracle
import pandas as pd
import pyarrow as pa
import pytest
from conftest import ROOT
from hypothesis import example, given, settings
from hypothesis import strategies as st

from featurestore import backend
from featurestore.classes import ClassSpec
from featurestore.folds import fold_view, shared_groups, split_view
from featurestore.funnel import fate_view, funnel_view
from featurestore.labels import coverage_view, label_view
from featurestore.thresholds import threshold_view

NAMES = ["Connective-Tissue", 'O\'Brien; drop "x" --', "Öl & Fett"]
INDEX = [2, 0, 1]
KEY = ["slide_id", "x", "y"]
# Sixteenths add up exactly in any order; the others are what real shares look like.
SHARES = st.one_of(
    st.just(0.0), st.integers(0, 16).map(lambda n: n / 16), st.floats(0, 1, width=32)
)
THRESHOLDS = st.one_of(st.just(0.0), st.integers(0, 16).map(lambda n: n / 16))


@st.composite
def cases(draw: Any, classes: int | None = None) -> dict[str, Any]:
    """Draw tiles, rules, an assignment of folds and embeddings for some of the tiles."""
    count = classes or draw(st.integers(1, 3))
    rows = draw(st.lists(st.tuples(*[SHARES] * count), min_size=1, max_size=12))
    keys = [{"slide_id": f"s{n % 3}", "x": n, "y": n * n} for n in range(len(rows))]
    subset = st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))
    folds = st.lists(st.sampled_from([0, 1, 2, None]), min_size=len(rows), max_size=len(rows))
    return {
        "names": NAMES[:count],
        "rows": rows,
        "keys": keys,
        "thresholds": draw(st.tuples(*[THRESHOLDS] * count)),
        "tissue_prop_min": draw(st.sampled_from([0.0, 0.2, 0.25, 0.5])),
        "single_class": draw(st.booleans()),
        "rule": draw(st.sampled_from(["dominant", "any_passing"])),
        "fold": draw(folds),
        "embedded": draw(subset),
    }


TIES = {
    "names": NAMES,
    "rows": [
        (0.5, 0.5, 0.0), (0.0, 0.25, 0.25), (0.0, 0.0, 0.0), (0.0, 0.0, 0.25), (0.5, 0.0, 0.0),
    ],
    "keys": [{"slide_id": "s", "x": n, "y": 0} for n in range(5)],
    "thresholds": (0.5, 0.0, 0.25),
    "tissue_prop_min": 0.25,
    "single_class": False,
    "rule": "dominant",
    "fold": [0, 1, 2, 0, None],
    "embedded": [True, False, True, True, True],
}  # fmt: skip


class Built:
    """The views of one case, beside the tables that the twins read."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.case = case
        self.connection = backend.connect(threads=1)
        columns = {key: [row[key] for row in case["keys"]] for key in KEY}
        for number, name in enumerate(case["names"]):
            columns[f"roi_coverage_{name}"] = [row[number] for row in case["rows"]]
        tiles = backend.register(self.connection, "tiles", pa.table(columns))
        self.classes = [
            ClassSpec(name, index, threshold)
            for name, index, threshold in zip(
                case["names"], sorted_indices(len(case["names"])), case["thresholds"], strict=True
            )
        ]
        self.labels = label_view(tiles, self.classes, case["rule"])
        self.thresholds = threshold_view(
            self.labels, self.classes, case["tissue_prop_min"], case["single_class"], case["rule"]
        )
        keys = pa.table({key: columns[key] for key in KEY})
        folds = keys.append_column("fold", pa.array(case["fold"], pa.int64()))
        self.assigned = backend.register(self.connection, "assigned", folds)
        there = backend.register(self.connection, "embeddings", keys.filter(case["embedded"]))
        self.folds = fold_view(self.thresholds, self.assigned)
        self.fates = fate_view(self.folds, there)
        self.funnel = funnel_view(self.fates)

    def twin(self, name: str, **parameters: object) -> list[tuple]:
        """Run a hand-written query of tests/sql on the same tables."""
        text = (ROOT / "tests" / "sql" / f"{name}.sql").read_text()
        used = {key: value for key, value in parameters.items() if f"${key}" in text}
        return sorted(self.connection.con.execute(text, used).fetchall(), key=repr)

    def shares(self, number: int) -> dict[str, float]:
        return dict(zip(self.case["names"], self.case["rows"][number], strict=True))


def sorted_indices(count: int) -> list[int]:
    """Return target indices of the first classes: INDEX for all three, else in order."""
    return INDEX if count == 3 else list(range(count))


def tuples(view: Any, *columns: str) -> list[tuple]:
    rows = view.select(*columns).to_pyarrow().to_pylist()
    return sorted((tuple(row.values()) for row in rows), key=repr)


def by_x(view: Any, column: str) -> list[Any]:
    return view.order_by("x").to_pyarrow()[column].to_pylist()


@settings(max_examples=50, deadline=None)
@given(cases(classes=3))
@example(TIES)
def test_views_agree_with_their_sql_twins(case: dict[str, Any]):
    built = Built(case | {"rule": "dominant"})
    rules = {"tissue_prop_min": case["tissue_prop_min"], "single_class": case["single_class"]}
    rules |= dict(zip("abc", case["thresholds"], strict=True))
    columns = (*KEY, "tissue_prop", "dominant", "label", "target")
    assert tuples(built.labels, *columns) == built.twin("labels")
    assert tuples(built.thresholds, *KEY, "dropped_by") == built.twin("thresholds", **rules)
    long = coverage_view(built.labels, built.classes)
    assert tuples(long, *KEY, "class", "coverage") == built.twin("coverages")
    for name in ("thresholds", "fates"):
        backend.create_view(built.connection, name, getattr(built, name))
        if name == "thresholds":
            assert tuples(built.fates, *KEY, "fold", "dropped_by") == built.twin("fates")
    assert tuples(built.funnel, "step", "reason", "tiles") == built.twin("funnel")
    split = split_view(built.fates, 1)
    assert tuples(split, *KEY, "split") == built.twin("split", fold=1)
    shared = shared_groups(split, "slide_id")
    assert tuples(shared, "slide_id", "train", "validation") == built.twin("shared_groups", fold=1)


@settings(max_examples=50, deadline=None)
@given(cases())
@example(TIES)
@example(TIES | {"rule": "any_passing"})
def test_views_agree_with_the_oracle(case: dict[str, Any]):
    """Labels under both rules, the order of reasons, and every tile's one fate."""
    built = Built(case)
    thresholds = dict(zip(case["names"], case["thresholds"], strict=True))
    rows = range(len(case["rows"]))
    labels = [oracle.label(built.shares(n), thresholds, case["rule"]) for n in rows]
    assert by_x(built.labels, "label") == labels
    index = {spec.name: spec.index for spec in built.classes}
    assert by_x(built.labels, "target") == [index.get(label) for label in labels]
    reasons = [
        oracle.dropped_by(
            built.shares(n), thresholds, case["tissue_prop_min"], case["single_class"], case["rule"]
        )
        for n in rows
    ]
    assert by_x(built.thresholds, "dropped_by") == reasons
    fates = [
        reason
        or ("rare_class" if case["fold"][n] is None else None)
        or (None if case["embedded"][n] else "no_embedding")
        for n, reason in enumerate(reasons)
    ]
    assert by_x(built.fates, "dropped_by") == fates
    counted = {row["reason"]: row["tiles"] for row in built.funnel.to_pyarrow().to_pylist()}
    assert counted == oracle.funnel(pd.Series(fates, dtype=object))
    assert counted["input"] == counted["kept"] + sum(counted[r] for r in oracle.REASONS)


def test_first_column_wins_a_tie():
    assert by_x(Built(TIES).labels, "label")[:2] == [NAMES[0], NAMES[1]]


def test_threshold_of_zero_takes_any_coverage_but_not_none():
    case = TIES | {"rows": [(0.0, 1 / 1024, 0.0)] + [(0.0, 0.0, 0.0)] * 4, "tissue_prop_min": 0.0}
    assert by_x(Built(case).thresholds, "dropped_by") == [None] + ["background"] * 4


def test_any_passing_takes_the_largest_that_passes():
    """0.5 of the first class is below its 0.75; the second has 0.25 and needs 0.25."""
    rows = [(0.5, 0.25, 0.0), (0.5, 0.125, 0.0)]
    case = TIES | {"rows": rows, "keys": TIES["keys"][:2], "thresholds": (0.75, 0.25, 0.0),
                   "rule": "any_passing", "fold": [0, 0], "embedded": [True, True]}  # fmt: skip
    built = Built(case)
    assert by_x(built.labels, "label") == [NAMES[1], NAMES[0]]
    assert by_x(built.thresholds, "dropped_by") == [None, "class_threshold"]
    assert by_x(Built(case | {"rule": "dominant"}).thresholds, "dropped_by") == [
        "class_threshold", "class_threshold",
    ]  # fmt: skip


def test_split_is_null_for_a_dropped_tile():
    assert by_x(split_view(Built(TIES).fates, 0), "split") == [
        "validation", None, None, "validation", None,
    ]  # fmt: skip


def test_a_fold_of_the_artifact_passes_through():
    thresholds = Built(TIES).thresholds.mutate(fold=1)
    assert fold_view(thresholds).equals(thresholds)


def test_coverages_stand_in_long_form():
    built = Built(TIES)
    rows = coverage_view(built.labels, built.classes).to_pyarrow().to_pylist()
    assert len(rows) == 5 * 3
    assert {(r["x"], r["class"], r["coverage"]) for r in rows} >= {
        (0, NAMES[0], 0.5), (3, NAMES[2], 0.25),
    }  # fmt: skip


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.int64()])
def test_coverage_may_be_any_number(kind: pa.DataType):
    connection = backend.connect(threads=1)
    column = pa.array([0, 1], kind)
    table = pa.table({"slide_id": ["s", "s"], "x": [0, 1], "y": [0, 0], "roi_coverage_A": column})
    view = label_view(backend.register(connection, "tiles", table), [ClassSpec("A", 0, 0.5)])
    assert by_x(view, "label") == ["background", "A"]
    assert by_x(view, "tissue_prop") == [0.0, 1.0]
