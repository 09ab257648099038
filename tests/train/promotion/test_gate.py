"""The gate: every line holds and fails for its own reason alone."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from train.config.load import filed
from train.config.schema import ConfigError
from train.evaluation.estimates import Estimate
from train.promotion import checks, gate
from train.promotion.checks import Evidence, run_checks
from train.promotion.requirements import Floor, Gate

NAMES = ["Fat", "Connective-Tissue", "a: b"]
SHA = "0123456789abcdef" * 4


def figures(value: float, low: float | None = None, **changes: float) -> dict[str, Estimate]:
    """Return equal figures, but for what is changed; recall_0 is that of the first class."""
    names = ["f1_macro", "calibration_error"]
    names += [f"{kind}/{name}" for kind in ("recall", "f1") for name in NAMES]
    spelled = {f"{kind}/{name}": f"{kind}_{i}" for i, name in enumerate(NAMES)
               for kind in ("recall", "f1")}  # fmt: skip
    low = value if low is None else low
    return {n: Estimate(changes.get(spelled.get(n, n), value), low, value) for n in names}


def evidence(**changes) -> Evidence:
    """Return evidence that passes the default gate, but for what is changed."""
    good = Evidence(
        classes=NAMES,
        tiles=[5, 5, 5],
        candidate=figures(0.9, calibration_error=0.05),
        champion=figures(0.8),
        differences=figures(0.1, low=0.01),
        shared={"slides": 0, "patients": 0},
        recorded={"tiles": "t" * 64, "embeddings": "e" * 64, "test_tiles": "x" * 64},
        read={"tiles": "t" * 64, "embeddings": "e" * 64, "test_tiles": "x" * 64},
    )
    return replace(good, **changes)


def failed(asked: Gate, given_: Evidence) -> list[str]:
    return [line.name for line in checks.failed_checks(run_checks(asked, given_))]


def test_lines_come_in_one_order_and_all_hold():
    lines = run_checks(Gate(), evidence())
    assert [line.name for line in lines] == [
        "floor: Fat", "floor: Connective-Tissue", "floor: a: b",
        "worse: Fat", "worse: Connective-Tissue", "worse: a: b",
        "difference", "calibration", "shared slides", "shared patients", "test set",
        "digests of the data",
    ]  # fmt: skip
    assert all(line.passed and line.measured and line.required for line in lines)
    assert {line.kind for line in lines[:6]} == {"floor", "worse"}


FAILING = {
    # name: (changes of the gate, changes of the evidence, the one line that fails)
    "below its floor": ({}, {"candidate": figures(0.9, recall_1=0.49, calibration_error=0.05)},
                        "floor: Connective-Tissue"),
    "below a floor of its own": (
        {"floor": Floor(classes={"Fat": 0.95})}, {}, "floor: Fat"),
    "floor of f1": (
        {"floor": Floor(figure="f1")},
        {"candidate": figures(0.9, f1_2=0.1, calibration_error=0.05)}, "floor: a: b"),
    "one class worse": ({}, {"differences": figures(0.1, recall_0=-0.06)}, "worse: Fat"),
    "one class worse in a figure that is no number": (
        {}, {"differences": figures(0.1, recall_0=math.nan)}, "worse: Fat"),
    "interval too low": ({}, {"differences": figures(0.1, low=-0.03)}, "difference"),
    "interval just at the bound": ({}, {"differences": figures(0.1, low=-0.02)}, "difference"),
    "no interval": ({}, {"differences": figures(0.1, low=math.nan)}, "difference"),
    "not calibrated": ({}, {"candidate": figures(0.9, calibration_error=0.11)}, "calibration"),
    "shared slide": ({}, {"shared": {"slides": 1, "patients": 0}}, "shared slides"),
    "slides not known": ({}, {"shared": {"slides": None, "patients": 0}}, "shared slides"),
    "shared patient": ({}, {"shared": {"slides": 0, "patients": 2}}, "shared patients"),
    "patients not known": ({}, {"shared": {"slides": 0, "patients": None}}, "shared patients"),
    "a test set that has decided often": ({"test_set_decisions": 3}, {"decisions": 3}, "test set"),
    "other test tiles": ({}, {"read": {"test_tiles": "y" * 64}}, "digests of the data"),
    "other by either rule": ({}, {"read": {"test_tiles": "y" * 64},
                                  "earlier": {"test_tiles": "z" * 64}}, "digests of the data"),
    "unknown artifact": ({}, {"read": {"test_embeddings": SHA}}, "digests of the data"),
    "nothing recorded": ({}, {"recorded": {}, "read": {}}, "digests of the data"),
    "other than the gate's": ({"known": {"test_tiles": SHA}}, {}, "digests of the data"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILING)
def test_each_line_fails_alone(name: str):
    asked, changes, line = FAILING[name]
    assert failed(Gate(**asked), evidence(**changes)) == [line]


HOLDING = {
    "at its floor": ({"floor": Floor(default=0.9)}, {}),
    "worse by just what is allowed": ({}, {"differences": figures(0.1, recall_0=0.85 - 0.9)}),
    "a test set for the last time": ({"test_set_decisions": 3}, {"decisions": 2}),
    "no champion": ({}, {"champion": None, "differences": None}),
    "patients not known": ({"unknown_patients": "allow"},
                           {"shared": {"slides": 0, "patients": None}}),
    "a newer test set that the gate lists": (
        {"known": {"test_tiles": SHA}}, {"read": {"test_tiles": SHA}}),
    "read as runs were recorded earlier": (
        {}, {"read": {"tiles": SHA}, "earlier": {"tiles": "t" * 64}}),
    "no better, but surely not worse": ({}, {"differences": figures(0.0, low=-0.019)}),
    "nothing asked": (
        {"worse": None, "difference": None, "calibration_error": None, "shared_slides": None,
         "shared_patients": None, "test_set_decisions": None, "digests": False,
         "floor": Floor(default=0)},
        {"candidate": figures(0.0), "differences": figures(-1.0), "recorded": {},
         "decisions": 99, "shared": {"slides": 9, "patients": 9}}),
}  # fmt: skip


def test_a_line_is_a_sentence_with_figure_limit_and_margin():
    asked = Gate(unknown_patients="allow")
    changes = {"shared": {"slides": 0, "patients": None},
               "candidate": figures(0.9, recall_1=0.25, calibration_error=0.05)}  # fmt: skip
    sentences = [line.sentence for line in run_checks(asked, evidence(**changes))]
    assert sentences[:2] == [
        "floor: Fat holds: 0.9000; asked is recall at least 0.5, 0.4 to spare",
        "floor: Connective-Tissue does not hold: 0.2500; asked is recall at least 0.5, 0.25 short",
    ]
    assert (
        "shared slides holds: 0; asked is at most 0 in training and test, at the limit" in sentences
    )
    assert any("allowed by unknown_patients of the gate" in line for line in sentences)
    assert not any("nan" in line for line in sentences)
    [line] = [line for line in run_checks(Gate(), evidence(**changes)) if "patients" in line.name]
    assert "set unknown_patients: allow in the gate" in line.measured


@pytest.mark.parametrize("name", HOLDING)
def test_what_the_gate_lets_pass(name: str):
    asked, changes = HOLDING[name]
    assert failed(Gate(**asked), evidence(**changes)) == []


def test_a_class_without_test_tiles_cannot_be_shown():
    """Unless the gate says that it may be absent."""
    none = {"tiles": [0, 5, 5], "candidate": figures(0.9, recall_0=math.nan, calibration_error=0),
            "differences": figures(0.1, recall_0=math.nan)}  # fmt: skip
    assert failed(Gate(), evidence(**none)) == ["floor: Fat", "worse: Fat"]
    assert failed(Gate(floor=Floor(may_be_absent=["Fat"])), evidence(**none)) == []
    lines = run_checks(Gate(), evidence(**none))
    assert "no tile" in lines[0].measured


def test_files_as_registered():
    assert checks.files_line({"version 7": [], "version 3": None}).passed
    assert not checks.files_line({"version 7": None, "version 3": []}).passed
    assert not checks.files_line({"version 7": [], "version 3": ["MLmodel changed"]}).passed
    line = checks.files_line({"version 7": ["data/model.pt2 changed"]})
    assert (line.passed, "data/model.pt2 changed" in line.measured) == (False, True)


shares = st.floats(0, 1)


@given(least=shares, value=st.floats(0, 1) | st.just(math.nan))
def test_a_floor_is_a_floor(least: float, value: float):
    """A figure that is no number is never enough."""
    given_ = evidence(candidate=figures(value), differences=None)
    lines = [line for line in run_checks(Gate(floor=Floor(default=least)), given_) if
             line.kind == "floor"]  # fmt: skip
    assert all(line.passed == (value >= least - checks.ROUNDING) for line in lines)


@given(strict=st.integers(0, 10), change=st.floats(-1, 1), low=st.floats(-1, 1))
def test_a_looser_gate_lets_no_less_pass(strict: int, change: float, low: float):
    given_ = evidence(differences=figures(change, low=low))
    tight, loose = (Gate(worse=most / 20, difference=most / 20) for most in (strict, strict + 1))
    assert set(failed(loose, given_)) <= set(failed(tight, given_))


# -- its file -------------------------------------------------------------------------------------


def test_the_file_spells_out_the_defaults():
    assert filed(Gate, ROOT / "configs" / "gate.yaml") == Gate()


def test_a_gate_of_ones_own(tmp_path: Path):
    (tmp_path / "gate.yaml").write_text(
        "floor: {figure: f1, classes: {Connective-Tissue: 0.8}}\nworse: null\n"
        f"known: {{test_tiles: {SHA}}}\n"
    )
    asked = filed(Gate, tmp_path / "gate.yaml")
    gate.check(asked)
    gate.check_classes(asked, NAMES)
    assert asked.floor.classes == {"Connective-Tissue": 0.8}
    assert (asked.worse, asked.difference, asked.known["test_tiles"]) == (None, 0.02, SHA)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("wrose: 0.1", ["'wrose'", "did you mean 'worse'"]),
        ("floor: {figure: recal}", ["floor.figure", "did you mean 'recall'"]),
        ("floor: {overall: {kapa: 0.8}}", ["floor.overall", "did you mean 'kappa'"]),
        ("floor: {defualt: 0.5}", ["'floor.defualt'", "did you mean 'floor.default'"]),
        ("worse: much", ["worse"]),
        ("worse: -0.1", ["worse is no share", "-0.1"]),
        ("calibration_error: .nan", ["calibration_error is not a finite number", "nan"]),
        ("floor: {classes: {Fat: 50}}", ["floor.classes.Fat is no share", "50"]),
        ("shared_slides: -1", ["shared_slides is negative"]),
        ("known: {tiles: abc}", ["known.tiles is no SHA-256", "'abc'"]),
        ("floor: {classes: {fat: 0.5}}", ["class 'fat'", "did you mean 'Fat'"]),
        ("floor: {may_be_absent: [Muscle]}", ["class 'Muscle'", "Fat, Connective-Tissue"]),
        ("[1, 2]", ["gate.yaml is not a mapping"]),
    ],
)
def test_what_a_gate_must_not_say(content: str, words: list[str], tmp_path: Path):
    (tmp_path / "gate.yaml").write_text(content)
    with pytest.raises(ConfigError) as refusal:
        asked = filed(Gate, tmp_path / "gate.yaml")
        gate.check(asked)
        gate.check_classes(asked, NAMES)
    for word in words:
        assert word in str(refusal.value)
