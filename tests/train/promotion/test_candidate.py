"""What a candidate is judged by: the rules that it was trained by, the unit that is resampled."""

from datetime import UTC, datetime

import pytest

from train.config.schema import Config
from train.config.sections import Data, Sweep
from train.config.text import text
from train.promotion import candidate, checks, decision
from train.promotion.candidate import CandidateEvaluation, recorded_config, training_differences
from train.tracking.registry import Version
from train.tracking.runs import RunRecord

VERSION = Version("tissue-probe", "1", "run", {})
SWEPT = Config(
    fold="all", class_indices={"Fat": 0, "Muscle": 1}, thresholds={"Fat": 0.5, "Muscle": 0.5},
    data=Data("own"), sweep=Sweep(thresholds={"Fat": [0.2, 0.9]}),
)  # fmt: skip


def run_of(best: str | None) -> RunRecord:
    return RunRecord("run", None, text(SWEPT), {}, {}, {"best_setting": best} if best else {})


def test_test_tiles_are_labelled_by_the_rules_that_the_candidate_was_trained_by(
    monkeypatch: pytest.MonkeyPatch,
):
    """Of a sweep, those of the best setting; what is changed on purpose goes before."""
    monkeypatch.setattr(candidate, "load_run", lambda _: run_of("thresholds.Fat=0.9"))
    _, config = recorded_config(VERSION, [])
    assert config.thresholds == {"Fat": 0.9, "Muscle": 0.5}
    assert config.sweep == Sweep()
    _, config = recorded_config(VERSION, ["thresholds.Fat=0.3"])
    assert config.thresholds == {"Fat": 0.3, "Muscle": 0.5}


def test_two_settings_of_one_sweep_were_trained_under_other_rules(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(candidate, "load_run", lambda _: run_of("thresholds.Fat=0.2"))
    [note] = training_differences(run_of("thresholds.Fat=0.9"), VERSION)
    assert "under thresholds {'Fat': 0.2, 'Muscle': 0.5}, the candidate under" in note
    assert training_differences(run_of("thresholds.Fat=0.2"), VERSION) == []


def test_the_page_of_a_decision_names_what_intervals_resample():
    evidence = checks.Evidence([], [], {}, None, None, {}, {}, {})
    judged = CandidateEvaluation(evidence, run_of(None), {}, {}, 3, "patients")
    made = decision.Decision(
        "passed", "tissue-probe", "1", "champion", "none", "me", "promote", "0" * 40,
        datetime.now(UTC), evaluation=judged,
    )  # fmt: skip
    assert "beside each its 95 % interval over patients." in decision.page(made)
