"""What a run reports of the temperature that it has fitted."""

from featurestore.printing import Console
from train.config import sweep
from train.config.rules import is_sweep
from train.config.schema import SOLVERS, Config
from train.evaluation.calibration import Calibration
from train.predictions.table import Predictions
from train.reports.html import Page, Table, Text


def add_to_page(
    page: Page, calibration: Calibration, predictions: Predictions, config: Config
) -> None:
    """Add what a temperature does, on which tiles it was fitted, and what else these chose.

    Parameters
    ----------
    predictions
        Of the tiles that it was fitted on.
    """
    tiles = f"{len(predictions):,} {fitted_on(config)}, of {len(predictions.slides):,} slides"
    clusters = predictions.cluster_name
    cross_fitted = (
        f"Cross-fitted: {calibration.parts} parts of whole {clusters}, each with the temperature "
        "of the others, which tells how well calibrated other tiles may be expected to be."
        if calibration.parts > 1
        else f"There is no cross-fitted error: one of the {clusters} has all tiles, and leaves "
        "none to fit on."
    )
    page.add("good", Table("Calibration error", {
        "temperature": ["none", "cross-fitted", "as registered, on the tiles that it is fitted on"],
        "calibration error": [calibration.error_before, calibration.error_cross_fitted,
                              calibration.error_after],
    }, f"The temperature {calibration.temperature:.4g} was fitted on the logits of {tiles}."
        f"{also_chosen(config)} {cross_fitted} "
        "All other figures are of the temperature as registered.",
        folded=True)
    )  # fmt: skip
    if calibration.doubt:
        page.add("good", Text(f"Calibration: {calibration.doubt}.", doubtful=True))


def fitted_on(config: Config) -> str:
    """Return which tiles a temperature is fitted on."""
    folds = config.fold if isinstance(config.fold, list) else [config.fold]
    kind = "out-of-fold" if is_sweep(config) else "validation"
    names = "all folds" if config.fold == "all" else f"fold {', '.join(map(str, folds))}"
    return f"{kind} tiles ({names})"


def also_chosen(config: Config) -> str:
    """Return what else these tiles have chosen, as a sentence; empty for nothing."""
    epochs = config.probe == "logistic" and config.optimizer not in SOLVERS
    chosen = ["the epoch"] * epochs + ["the setting"] * (len(sweep.settings(config)) > 1)
    return f" They have chosen {' and '.join(chosen)}, too." if chosen else ""


def print_summary(console: Console, calibration: Calibration, predictions: Predictions) -> None:
    """Print a temperature, and the calibration errors without and with it."""
    clusters = predictions.cluster_name
    after = (
        f"{calibration.error_cross_fitted:.4f}, cross-fitted over {clusters}"
        if calibration.parts > 1
        else f"not known, as one of the {clusters} has all tiles"
    )
    errors = f"calibration error {calibration.error_before:.4f} -> {after}"
    console.print(f"temperature {calibration.temperature:.4g}: {errors}")
