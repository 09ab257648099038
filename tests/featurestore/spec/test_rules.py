"""Rules: each field of a spec is one or is known to be none, and all who name rules derive them."""

from featurestore import StoreSpec
from featurestore.folds import artifact
from featurestore.snapshots import build
from featurestore.spec.rules import (
    FILTERS,
    KEEPING,
    LABELLING,
    Artifacts,
    FoldRules,
    LabelRules,
    field_names,
)
from train import promote
from train.config import sweep
from train.config.schema import Config
from train.config.text import plain
from train.promotion import candidate

NO_RULES = ("storage", "leakage", "allow_missing", "backend", "folds", "columns", "slide_id_strip",
            "encoder")  # fmt: skip
SPEC = StoreSpec(class_indices={"Fat": 1, "Muscle": 0}, thresholds={"Fat": 0.5, "Muscle": 0.5})


def test_each_field_is_an_artifact_a_rule_or_named_as_neither():
    parts = field_names(Artifacts, LabelRules, FoldRules)
    assert field_names(StoreSpec) == (*parts, *NO_RULES)
    assert len(set(parts)) == len(parts)


def test_each_rule_decides_the_names_of_folds_and_snapshots():
    rules = field_names(LabelRules, FoldRules)
    assert rules == artifact.RULES
    assert (*rules, "storage") == build.RULES


def test_the_name_of_folds_is_what_it_has_been():
    """Folds that were assigned earlier are found again by it."""
    digest = "5b5a1fa4093c300253c34d7424972dd4dfc9a65fcbd5ba07a3154c3737baffa2"
    assert artifact.content(SPEC, "0" * 64) == digest


def test_each_label_rule_is_compared_at_a_promotion():
    """But the indices of classes: other classes are refused before."""
    assert {*KEEPING, "class_indices"} == set(field_names(LabelRules))
    assert set(KEEPING) <= set(promote.VIEW)
    assert set(candidate._rules(plain(Config()))) == set(KEEPING)


def test_each_label_rule_filters_or_decides_a_target():
    assert {*LABELLING, *FILTERS} == set(field_names(LabelRules))


def test_swept_rules_vary_in_the_order_that_they_have_had():
    assert sweep.RULES == ("kfold_strategy", "tissue_prop_min")
