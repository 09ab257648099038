"""Which metrics are logged by themselves."""

import pytest

from train.evaluation.evaluate import encode_metrics
from train.evaluation.metrics import METRICS
from train.evaluation.short_list import MOST_CLASSES, is_short

SHORT = (
    "train/loss", "validation/loss", "validation/f1_macro", "best/test/loss", "best/oof/brier",
    "best/test/f1_macro_low", "best/test/f1/Fat", "best/test/recall/Fat", "funnel/kept",
    "leakage/shared_slides", "calibration/temperature", "solver/gap", "fold0/validation/f1_macro",
    "validation/f1_macro_sd", "encoder/f1/test/accuracy", "difference/a/b/test/f1_macro_high",
    "leak_gap/f1_macro", "review/tiles", "mean/validation/f1/Fat", "fold4/converged",
    "registered/validation/accuracy",
)  # fmt: skip
TABLED = (
    "learning_rate", "class_weight/Fat", "funnel/input", "folds/imbalance_tiles",
    "validation/f1/Fat", "validation/accuracy_macro", "fold0/validation/f1/Fat",
    "best/test/kappa_low", "best/test/f1_low/Fat", "best/test/auroc/Fat",
    "best/test/f1_low/f1_macro_",
    "best/test/accuracy/Fat", "best/test/slide_accuracy/min", "best/test/group/organ/lung/f1_macro",
    "difference/a/b/test/kappa",
    "fold0/validation/balanced_accuracy", "fold4/gap",
    "registered_fold/validation/f1_macro", "validation/accuracy_sd",
)  # fmt: skip


@pytest.mark.parametrize("name", SHORT)
def test_what_people_look_at_is_logged(name: str):
    assert is_short(name, 7)


@pytest.mark.parametrize("name", TABLED)
def test_the_rest_stands_in_a_table(name: str):
    assert not is_short(name, 7)


def test_of_many_classes_none_has_metrics_of_its_own():
    assert is_short("best/test/f1/Fat", MOST_CLASSES)
    assert not is_short("best/test/f1/Fat", MOST_CLASSES + 1)


@pytest.mark.parametrize("hostile", ["f1", "loss", "f1_macro", "kappa_low", "group", "a/b"])
def test_a_class_may_be_called_as_anything_else(hostile: str):
    [name] = encode_metrics({f"f1/{hostile}": 0.5}, "best/test")
    assert is_short(name, 7)


def test_a_fit_of_seven_classes_logs_about_thirty():
    names = [f"class{n}" for n in range(7)]
    figures = [
        each.replace("<class>", name) if "/" in each else each
        for each in METRICS
        for name in (names if "/" in each else names[:1])
    ]
    logged = [name for name in figures if is_short(f"best/validation/{name}", 7)]
    assert 20 <= len(logged) <= 25  # beside loss, epochs, funnel and leaks: ten more
