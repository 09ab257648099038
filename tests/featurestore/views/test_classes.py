"""Classes that are merged, dropped, or not known."""

import numpy as np
import pyarrow as pa
import pytest
from conftest import TABLES

from featurestore.backend import engine
from featurestore.errors import FeatureStoreWarning, SchemaError, UnknownClassError
from featurestore.folds import artifact
from featurestore.spec.rules import LabelRules
from featurestore.spec.store_spec import StoreSpec
from featurestore.store import FeatureStore
from featurestore.validation import violations
from featurestore.views.classes import ClassSpec, class_specs, class_view
from featurestore.views.labels import label_view
from featurestore.views.thresholds import threshold_view

NAMES = ["Necrosis", "Fat", "Pen", "Other", "Chronic"]


def rules(merge: dict, drop: tuple[str, ...] = (), **more: float) -> LabelRules:
    indices = {name: index for index, name in enumerate(more)}
    return LabelRules(indices, more, tissue_prop_min=0.0, merge=merge, drop=list(drop))


def test_a_merged_class_stands_where_its_own_column_is_or_its_first_members():
    """The order of columns decides ties."""
    specs = class_specs(NAMES, rules({"Other": ["Chronic", "Necrosis"], "Ink": ["Pen"]},
                                     Fat=0.5, Other=0.1, Ink=0.2))  # fmt: skip
    assert specs == (
        ClassSpec("Fat", 0, 0.5, ("Fat",)),
        ClassSpec("Ink", 2, 0.2, ("Pen",)),
        ClassSpec("Other", 1, 0.1, ("Necrosis", "Other", "Chronic")),
    )
    assert specs[1].columns == ["roi_coverage_Pen"]


def test_a_class_that_is_dropped_has_neither_index_nor_threshold():
    specs = class_specs(NAMES, rules({"Other": ["Chronic", "Necrosis", "Other"]}, ("Pen",),
                                     Fat=0.5, Other=0.1))  # fmt: skip
    assert [spec.index for spec in specs] == [0, None, 1]
    table = engine.connect().create_table("classes", class_view(specs), temp=True)
    assert table.to_pyarrow()["index"].to_pylist() == [0, None, 1]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (rules({"Other": ["Necrosi"]}, Fat=0.5),
         ["merge.Other", "'Necrosi'", "did you mean 'Necrosis'?"]),
        (rules({"Other": ["Pen"], "Fat": ["Pen"]}), ["'Pen' is merged twice", "into 'Other'"]),
        (rules({"Other": ["Pen"], "Pen": ["Fat"]}), ["'Pen' is merged twice"]),
        (rules({}, ("Penn",)), ["drop names", "'Penn'", "did you mean 'Pen'?"]),
        (rules({}, ("Pen",), Pen=0.1), ["'Pen' is dropped, and has a rule", "class_indices.Pen"]),
        (rules({"Other": ["Pen"]}, ("Pen",)), ["drop names a class that is not in the data"]),
        (rules({"Other": ["Necrosis", "Chronic"]}, Fat=0.1, Other=0.1),
         ["no entry for classes of the data: 'Pen'", "merge.CLASS=[Pen]", "drop=[Pen]"]),
        (rules({"Other": ["Pen", "Chronic", "Necrosis"]}, Fat=0.1, Other=0.1, Pen=0.1),
         ["names classes that are not in the data: 'Pen'", "merged"]),
    ],
)  # fmt: skip
def test_classes_are_named_where_they_do_not_fit(asked: LabelRules, words: list[str]):
    with pytest.raises(UnknownClassError) as refused:
        class_specs(NAMES, asked)
    assert all(word in str(refused.value) for word in words), refused.value


def test_background_is_reserved():
    with pytest.raises(SchemaError, match="may not be named 'background'"):
        class_specs(NAMES, rules({"background": ["Pen"]}))


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()], ids=str)
def test_sums_of_decimals_at_a_threshold_reach_it(kind: pa.DataType):
    """0.7 + 0.1 is below 0.8 in doubles; 0.69 + 0.1 is below it in any arithmetic."""
    shares = {"roi_coverage_A": [0.7, 0.69, 0.8, 0.0], "roi_coverage_B": [0.1, 0.1, 0.0, 0.8]}
    tiles = pa.table({name: pa.array(column, kind) for name, column in shares.items()})
    classes = [ClassSpec("A", 0, 0.8, ("A", "B"))]
    labels = label_view(engine.register(engine.connect(), "tiles", tiles), classes)
    reasons = threshold_view(labels, classes, LabelRules()).dropped_by
    assert reasons.to_pyarrow().to_pylist() == [None, "class_threshold", None, None]


@pytest.mark.parametrize("rule", ["dominant", "any_passing"])
def test_merging_is_adding_columns_up(rule: str):
    """What numpy makes of the columns beforehand gets the same labels and reasons."""
    rng = np.random.default_rng(0)
    shares = rng.integers(0, 9, (300, 3)) / 16
    names = ["A", "B", "C"]
    columns = {f"roi_coverage_{name}": shares[:, n] for n, name in enumerate(names)}
    added = {
        "roi_coverage_B": shares[:, 1],
        "roi_coverage_C": np.minimum(shares[:, 0] + shares[:, 2], 1),
    }
    asked = LabelRules(single_class=False, label_rule=rule)  # type: ignore[arg-type]
    answers = []
    for table, members in ((columns, ("A", "C")), (added, ())):
        tiles = engine.register(engine.connect(), "tiles", pa.table(table))
        classes = [ClassSpec("B", 0, 0.5), ClassSpec("C", 1, 0.25, members)]
        labels = label_view(tiles, classes, rule)  # type: ignore[arg-type]
        rows = threshold_view(labels, classes, asked)
        answers.append(rows.select("tissue_prop", "dominant", "label", "target", "dropped_by"))
    assert answers[0].to_pyarrow().equals(answers[1].to_pyarrow())


def opened(artifacts: TABLES, **rules: object) -> FeatureStore:
    named = {key.removeprefix("data."): uri for key, uri in artifacts().items()}
    return FeatureStore(StoreSpec(**named, **rules))  # type: ignore[arg-type]


def test_tiles_of_a_dropped_class_have_a_fate_of_their_own(artifacts: TABLES):
    store = opened(artifacts, class_indices={"Fat": 0}, thresholds={"Fat": 0.5}, drop=["Muscle"])
    funnel = {row["reason"]: row["tiles"] for row in store.funnel()}
    assert (funnel["input"], funnel["dropped_class"], funnel["kept"]) == (12, 6, 6)
    query = "select distinct label, target from fates where dropped_by = 'dropped_class'"
    assert store.sql(query).to_pyarrow().to_pylist() == [{"label": "Muscle", "target": None}]


def test_without_such_a_class_the_funnel_does_not_tell_of_it(artifacts: TABLES):
    rules = {"class_indices": {"Fat": 0}, "thresholds": {"Fat": 0.5}, "merge": {"Fat": ["Muscle"]}}
    store = opened(artifacts, **rules)
    assert "dropped_class" not in {row["reason"] for row in store.funnel()}
    assert store.funnel()[-1]["tiles"] == 12


def test_what_covers_more_than_a_tile_is_told_and_counts_as_one(artifacts: TABLES):
    overfull = artifacts({"roi_coverage_Muscle": [0.2 if n % 2 else 0.8 for n in range(12)]})
    named = {key.removeprefix("data."): uri for key, uri in overfull.items()}
    merged = {"merge": {"Tissue": ["Fat", "Muscle"]}, "class_indices": {"Tissue": 0},
              "thresholds": {"Tissue": 0.5}}  # fmt: skip
    store = FeatureStore(StoreSpec(**named, **merged))  # type: ignore[arg-type]
    with pytest.warns(FeatureStoreWarning, match="sum to more than 1, which .* Tissue: 6 of them"):
        labels = store.view("labels").to_pyarrow()
    assert labels["tissue_prop"].to_pylist() == [0.8, 1.0] * 6
    told = violations(store).to_pylist()
    assert [row["rows"] for row in told if "count as: Tissue" in row["wrong"]] == [6]


def test_both_spellings_of_an_umlaut_are_one_class():
    spec = StoreSpec(merge={"O\u0308l": ["Fe\u0301"]}, drop=["u\u0308"])
    assert (spec.merge, spec.drop) == ({"Öl": ["Fé"]}, ["ü"])


def test_folds_are_named_by_what_is_merged_and_by_nothing_else():
    """Without a merge by what they were named by before there were any."""
    plain = StoreSpec(class_indices={"Fat": 0}, thresholds={"Fat": 0.5})
    merged = StoreSpec(class_indices={"Fat": 0}, thresholds={"Fat": 0.5}, merge={"Fat": ["Pen"]})
    dropped = StoreSpec(class_indices={"Fat": 0}, thresholds={"Fat": 0.5}, drop=["Pen"])
    assert len({artifact.content(spec, "0" * 64) for spec in (plain, merged, dropped)}) == 3
