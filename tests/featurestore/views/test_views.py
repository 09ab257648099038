"""Each view against its plain-SQL twin and against a slow oracle, over generated tiles."""

from decimal import Decimal
from typing import Any

import numpy as np
import oracle
import pandas as pd
import pyarrow as pa
import pytest
from conftest import ROOT, examples
from hypothesis import example, given, settings
from hypothesis import strategies as st

from featurestore.backend import engine
from featurestore.spec.rules import LabelRules
from featurestore.views.classes import ClassSpec
from featurestore.views.fates import fate_view, funnel_view
from featurestore.views.folds import fold_view, shared_groups, split_view
from featurestore.views.labels import coverage_view, label_view
from featurestore.views.summaries import histogram_view, survival_view
from featurestore.views.thresholds import threshold_view

NAMES = ["Connective-Tissue", 'O\'Brien; drop "x" --', "Öl & Fett"]
INDEX = [2, 0, 1]
KEY = ["slide_id", "x", "y"]
# Sixteenths add up exactly in any order; the others are what real shares look like.
SHARES = st.one_of(
    st.just(0.0), st.integers(0, 16).map(lambda n: n / 16), st.floats(0, 1, width=32)
)
THRESHOLDS = st.one_of(
    st.just(0.0), st.integers(0, 16).map(lambda n: n / 16), st.integers(0, 10).map(lambda n: n / 10)
)
# What people write: decimals of one to four places.
DECIMALS = st.integers(0, 4).flatmap(
    lambda places: st.integers(0, 10**places).map(lambda n: Decimal(n).scaleb(-places))
)
KINDS = {
    "float64": (pa.float64(), np.float64),
    "float32": (pa.float32(), np.float32),
    "decimal": (pa.decimal128(38, 30), Decimal),
}
"""Of a column: its type in Arrow, and that of its values to the oracle."""


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
        "kind": draw(st.sampled_from(["float64", "float32"])),
    }


@st.composite
def decimals(draw: Any) -> dict[str, Any]:
    """Draw tiles and rules whose numbers are all short decimals, sums at their bound among them."""
    case = draw(cases(classes=3))
    rows = draw(st.lists(st.tuples(*[DECIMALS] * 3), min_size=1, max_size=40))
    bound = draw(st.one_of(DECIMALS, st.just(sum(rows[0])).filter(lambda sum: sum <= 1)))
    return case | {
        "rows": rows,
        "keys": [{"slide_id": "s", "x": n, "y": 0} for n in range(len(rows))],
        "thresholds": tuple(map(float, draw(st.tuples(*[DECIMALS] * 3)))),
        "tissue_prop_min": float(bound),
        "fold": [0] * len(rows),
        "embedded": [True] * len(rows),
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
    "kind": "float64",
}  # fmt: skip
AT_THE_BOUND = TIES | {
    "rows": [
        (Decimal(a), Decimal(b), Decimal(c)) for a, b, c in [
            ("0.7", "0", "0"), ("0.6999", "0.1001", "0"), ("0.7", "0.1", "0"), ("0.8", "0", "0"),
            ("0.1", "0", "0.7"),
        ]
    ],
    "thresholds": (0.7, 0.1, 0.7),
    "tissue_prop_min": 0.8,
}  # fmt: skip


class Built:
    """The views of one case, beside the tables that the twins read."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.case = case
        self.connection = engine.connect(threads=1)
        columns = {key: [row[key] for row in case["keys"]] for key in KEY}
        for number, name in enumerate(case["names"]):
            kind, value = KINDS[case["kind"]]
            values = [value(row[number]) for row in case["rows"]]
            columns[f"roi_coverage_{name}"] = pa.array(values, kind)
        tiles = engine.register(self.connection, "tiles", pa.table(columns))
        self.classes = [
            ClassSpec(name, index, threshold)
            for name, index, threshold in zip(
                case["names"], sorted_indices(len(case["names"])), case["thresholds"], strict=True
            )
        ]
        self.labels = label_view(tiles, self.classes, case["rule"])
        rules = LabelRules(
            tissue_prop_min=case["tissue_prop_min"],
            single_class=case["single_class"],
            label_rule=case["rule"],
        )
        self.thresholds = threshold_view(self.labels, self.classes, rules)
        keys = pa.table({key: columns[key] for key in KEY})
        folds = keys.append_column("fold", pa.array(case["fold"], pa.int64()))
        self.assigned = engine.register(self.connection, "assigned", folds)
        there = engine.register(self.connection, "embeddings", keys.filter(case["embedded"]))
        self.folds = fold_view(self.thresholds, self.assigned)
        self.fates = fate_view(self.folds, there)
        self.funnel = funnel_view(self.fates)

    def twin(self, name: str, **parameters: object) -> list[tuple]:
        """Run a hand-written query of tests/sql on the same tables."""
        text = (ROOT / "tests" / "sql" / f"{name}.sql").read_text()
        used = {key: value for key, value in parameters.items() if f"${key}" in text}
        return sorted(self.connection.con.execute(text, used).fetchall(), key=repr)

    def shares(self, number: int) -> dict[str, oracle.Share]:
        values = map(KINDS[self.case["kind"]][1], self.case["rows"][number])
        return dict(zip(self.case["names"], values, strict=True))

    def expected(self) -> tuple[list[str], list[str | None]]:
        """Return labels and reasons as the oracle has them."""
        case = self.case
        thresholds = dict(zip(case["names"], case["thresholds"], strict=True))
        tiles = [self.shares(number) for number in range(len(case["rows"]))]
        labels = [oracle.label(shares, thresholds, case["rule"]) for shares in tiles]
        rules = (thresholds, case["tissue_prop_min"], case["single_class"], case["rule"])
        return labels, [oracle.dropped_by(shares, *rules) for shares in tiles]


def merged_classes(threshold: float) -> list[ClassSpec]:
    """Return the classes where the last takes in the first, and the other is dropped."""
    return [ClassSpec(NAMES[1], None, 0.0), ClassSpec(NAMES[2], 0, threshold, (NAMES[0], NAMES[2]))]


def sorted_indices(count: int) -> list[int]:
    """Return target indices of the first classes: INDEX for all three, else in order."""
    return INDEX if count == 3 else list(range(count))


def tuples(view: Any, *columns: str) -> list[tuple]:
    rows = view.select(*columns).to_pyarrow().to_pylist()
    return sorted((tuple(row.values()) for row in rows), key=repr)


def by_x(view: Any, column: str) -> list[Any]:
    return view.order_by("x").to_pyarrow()[column].to_pylist()


@pytest.mark.slow
@settings(max_examples=examples(20), deadline=None)
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
    assert tuples(long, *KEY, "class", "coverage", "precision") == built.twin("coverages")
    merged = threshold_view(
        label_view(built.connection.table("tiles"), merged_classes(rules["c"])),
        merged_classes(rules["c"]),
        LabelRules(tissue_prop_min=rules["tissue_prop_min"], single_class=rules["single_class"],
                   drop=[NAMES[1]]),
    )  # fmt: skip
    columns = (*KEY, "tissue_prop", "label", "target", "dropped_by")
    assert tuples(merged, *columns) == built.twin("merged", **rules)
    for name in ("thresholds", "fates"):
        engine.create_view(built.connection, name, getattr(built, name))
        if name == "thresholds":
            assert tuples(built.fates, *KEY, "fold", "dropped_by") == built.twin("fates")
    assert tuples(built.funnel, "step", "reason", "tiles") == built.twin("funnel")
    split = split_view(built.fates, 1)
    assert tuples(split, *KEY, "split") == built.twin("split", fold=1)
    shared = shared_groups(split, "slide_id")
    assert tuples(shared, "slide_id", "train", "validation") == built.twin("shared_groups", fold=1)


@pytest.mark.slow
@settings(max_examples=examples(20), deadline=None)
@given(cases())
@example(TIES)
@example(TIES | {"rule": "any_passing"})
def test_views_agree_with_the_oracle(case: dict[str, Any]):
    """Labels under both rules, the order of reasons, and every tile's one fate."""
    built = Built(case)
    labels, reasons = built.expected()
    assert by_x(built.labels, "label") == labels
    index = {spec.name: spec.index for spec in built.classes}
    assert by_x(built.labels, "target") == [index.get(label) for label in labels]
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


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["dominant", "any_passing"])
@pytest.mark.parametrize("count", [7, 28, 200])
def test_many_classes_have_the_fates_of_the_oracle(count: int, rule: str):
    """Shares of few values: of so many classes most are 0, and many are equal."""
    rng = np.random.default_rng(count)
    shares = rng.integers(0, 5, (40, count)) / 16 * (rng.random((40, count)) < 2 / count)
    built = Built(TIES | {
        "names": [f"class {number}" for number in range(count)],
        "rows": shares.tolist(),
        "keys": [{"slide_id": "s", "x": n, "y": 0} for n in range(40)],
        "thresholds": (rng.integers(0, 8, count) / 16).tolist(),
            "tissue_prop_min": 0.2,
        "rule": rule,
        "fold": [0] * 40,
        "embedded": [True] * 40,
    })  # fmt: skip
    labels, reasons = built.expected()
    assert by_x(built.labels, "label") == labels
    assert by_x(built.thresholds, "dropped_by") == reasons
    assert {None, "background", "tissue", "class_threshold"} <= set(reasons)


@pytest.mark.slow
def test_the_text_of_a_view_grows_as_the_classes_do():
    def lengths(count: int) -> list[int]:
        built = Built(TIES | {
            "names": [f"class {number:03d}" for number in range(count)],
            "rows": [[0.0] * count] * 5,
            "thresholds": [0.5] * count,
            "rule": "any_passing",
        })  # fmt: skip
        views = built.labels, built.thresholds, coverage_view(built.labels, built.classes)
        return [len(built.connection.compile(view)) for view in views]

    for few, more, many in zip(lengths(50), lengths(100), lengths(200), strict=True):
        assert many - more < 2.1 * (more - few)


@pytest.mark.slow
@settings(max_examples=examples(10), deadline=None)
@given(decimals())
@example(AT_THE_BOUND)
def test_the_same_decimals_have_the_same_fates_in_every_type(case: dict[str, Any]):
    """Those of exact decimal arithmetic: no coverage or sum misses its bound by its rounding."""
    labels, reasons = Built(case | {"kind": "decimal"}).expected()
    for kind in KINDS:
        built = Built(case | {"kind": kind})
        assert by_x(built.labels, "label") == labels, kind
        assert by_x(built.thresholds, "dropped_by") == reasons, kind


@pytest.mark.parametrize(
    ("kind", "ulps", "reason"),
    [("float64", 4, None), ("float64", 16, "tissue"), ("float32", 1, None),
     ("float32", 4, "tissue")],
)  # fmt: skip
def test_a_sum_below_its_bound_by_more_than_rounding_is_dropped(
    kind: str, ulps: int, reason: str | None
):
    """Of three classes: 0.5 and some ulps (of numbers from 0.5 to 1) less than 0.1875."""
    below = 0.1875 - ulps * float(np.finfo(KINDS[kind][1]).eps) / 2
    case = TIES | {"rows": [(0.5, below, 0.0)], "keys": TIES["keys"][:1], "kind": kind,
                   "tissue_prop_min": 0.6875, "fold": [0], "embedded": [True]}  # fmt: skip
    assert by_x(Built(case).thresholds, "dropped_by") == [reason]


@pytest.mark.parametrize("kind", ["float64", "float32", "decimal"])
def test_pictures_count_a_coverage_at_the_threshold_that_it_reaches(kind: str):
    """0.7 is in the bin that begins there, and survives 0.7, whatever its type."""
    shares = [Decimal(n) / 100 for n in (70, 58, 35, 100)]
    case = TIES | {"names": NAMES[:1], "rows": [(share,) for share in shares], "kind": kind,
                   "keys": TIES["keys"][:4], "thresholds": (0.0,), "tissue_prop_min": 0.0,
                   "fold": [0] * 4, "embedded": [True] * 4}  # fmt: skip
    built = Built(case)
    long = coverage_view(built.labels, built.classes)
    survival = survival_view(built.fates, long, steps=100).to_pyarrow().to_pylist()
    assert [row["tiles"] for row in survival] == [
        sum(share >= Decimal(step) / 100 for share in shares) for step in range(101)
    ]
    bins = {row["low"]: row["tiles"] for row in histogram_view(long).to_pyarrow().to_pylist()}
    assert bins == {0.35: 1, 0.55: 1, 0.7: 1, 0.95: 1}


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
    connection = engine.connect(threads=1)
    column = pa.array([0, 1], kind)
    table = pa.table({"slide_id": ["s", "s"], "x": [0, 1], "y": [0, 0], "roi_coverage_A": column})
    view = label_view(engine.register(connection, "tiles", table), [ClassSpec("A", 0, 0.5)])
    assert by_x(view, "label") == ["background", "A"]
    assert by_x(view, "tissue_prop") == [0.0, 1.0]
