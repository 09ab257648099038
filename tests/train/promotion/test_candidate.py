"""What a candidate is judged by: the rules that it was trained by, the unit that is resampled."""

import warnings
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.io.progress import Rows
from featurestore.spec.store_spec import StoreSpec
from featurestore.store import FeatureStore
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


def test_other_embeddings_than_the_champions_are_said(monkeypatch: pytest.MonkeyPatch):
    """Which a cohort that grows has, as well as another foundation model."""
    champion, candidate_run = (
        replace(run_of(None), data={"embeddings": digest}) for digest in ("a" * 64, "b" * 64)
    )
    monkeypatch.setattr(candidate, "load_run", lambda _: champion)
    [note] = training_differences(candidate_run, VERSION)
    assert "a cohort that has grown since, or of another foundation model" in note
    assert training_differences(champion, VERSION) == []


@pytest.mark.parametrize("embeddings", ["e.parquet", {"uni": "e.parquet", "virchow": "f.parquet"}])
def test_embeddings_of_training_tiles_are_no_matter_of_the_test_view(
    embeddings: str | dict[str, str], monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    """Of one encoder as of several, they are left out without a warning."""
    keys = {"slide_id": ["s0", "s1"], "x": [0, 0], "y": [0, 0]}
    shares = {"roi_coverage_Fat": [0.9], "roi_coverage_Muscle": [0.0]}
    vectors = pa.table({**keys, "embedding": [[1.0, 0.0], [0.0, 1.0]]})
    for name, place in (("tiles", 0), ("test_tiles", 1)):
        row = {key: values[place : place + 1] for key, values in keys.items()}
        pq.write_table(pa.table({**row, **shares}), f"{name}.parquet")
    for name in ("e", "f"):
        pq.write_table(vectors, f"{name}.parquet")
    spec = StoreSpec(
        class_indices={"Fat": 0, "Muscle": 1}, thresholds={"Fat": 0.5, "Muscle": 0.5},
        tiles="tiles.parquet", test_tiles="test_tiles.parquet", embeddings=embeddings,
        encoder="uni" if isinstance(embeddings, dict) else None,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*of no tile")
        tiles, _ = candidate.test_view(FeatureStore(spec), Rows(None))
    assert tiles.keys["slide_id"].to_pylist() == ["s1"]


def test_the_page_of_a_decision_names_what_intervals_resample():
    evidence = checks.Evidence([], [], {}, None, None, {}, {}, {})
    judged = CandidateEvaluation(evidence, run_of(None), {}, {}, 3, "patients")
    made = decision.Decision(
        "passed", "tissue-probe", "1", "champion", "none", "me", "promote", "0" * 40,
        datetime.now(UTC), evaluation=judged,
    )  # fmt: skip
    assert "beside each its 95 % interval over patients." in decision.page(made)
