"""What a run says of its temperature: by which tiles, what else they chose, what others get."""

import numpy as np
import pyarrow as pa
import pytest

from featurestore.printing import Console
from train.config.schema import Config
from train.config.sections import Sweep
from train.evaluation.calibration import calibrate
from train.predictions.table import Predictions
from train.reports.calibration import add_to_page, print_summary
from train.reports.html import Page

NAMES = ["a", "b"]


def reported(config: Config, slides: list[str], wrong: int = 3) -> tuple[Page, str, dict]:
    """Return page, print and metrics of a temperature of tiles of which some are wrong."""
    sign = np.where(np.arange(12) < wrong, -1, 1)[:, None]
    target = np.arange(12) % 2
    logits = (sign * np.where(target[:, None] == [0, 1], 2.0, 0.0)).astype(np.float32)
    keys = pa.table({"slide_id": slides, "x": range(12), "y": range(12), "patient_id": slides})
    predictions = Predictions(keys, target, logits, NAMES, config.evidence.resample)
    calibration, page, console = calibrate(logits, target, predictions.cluster), Page(), Console()
    with console.capture() as printed:
        print_summary(console, calibration, predictions)
    add_to_page(page, calibration, predictions, config)
    return page, " ".join(printed.get().split()), calibration.metrics


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fold": 4}, ["12 validation tiles (fold 4), of 4 slides", "chosen the epoch, too"]),
        ({"fold": "all", "probe": "ridge"}, ["12 out-of-fold tiles (all folds)"]),
        ({"fold": [0, 2], "sweep": Sweep(learning_rate=[0.1, 1.0])},
         ["out-of-fold tiles (fold 0, 2)", "chosen the epoch and the setting, too"]),
    ],
)  # fmt: skip
def test_the_page_says_which_tiles_fitted_it(changes: dict, words: list[str]):
    page, printed, metrics = reported(Config(**changes), list("abcd" * 3))
    [table] = page.sections["good"]
    for word in [*words, "4 parts of whole slides"]:
        assert word in table.note
    assert ("chosen" in table.note) == ("probe" not in changes)
    errors = [metrics[f"error_{name}"] for name in ("before", "cross_fitted", "after")]
    assert table.columns["calibration error"] == errors
    assert f"{errors[0]:.4f} -> {errors[1]:.4f}, cross-fitted over slides" in printed


def test_of_one_slide_no_honest_error_is_said():
    config = Config(fold=0)
    config.evidence.resample = "patient_id"
    page, printed, metrics = reported(config, ["a"] * 12)
    [table] = page.sections["good"]
    assert "no cross-fitted error: one of the patients has all tiles" in table.note
    assert np.isnan(table.columns["calibration error"][1])
    assert "-> not known, as one of the patients has all tiles" in printed
    assert "error_cross_fitted" not in metrics


def test_an_end_of_the_range_is_on_the_page():
    page, _, _ = reported(Config(fold=0), list("abcd" * 3), wrong=0)
    _, text = page.sections["good"]
    assert text.doubtful
    assert "infinitely sure" in text.text
