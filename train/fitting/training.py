"""How the model of a fit was trained: the one place that page, parameters and card take it from."""

from dataclasses import replace

from featurestore.spec.rules import LabelRules, field_names, values_of
from train.config.hyperparameters import EARLY_STOPPING, MODEL, hyperparameters, stops_early
from train.config.rules import lone_fold
from train.config.schema import Config
from train.config.sweep import path_of, trained_config
from train.engine.monitor import MONITORS
from train.fitting.grid import HeadGrid
from train.fitting.selection import Choice
from train.models.training import Training

LABEL_RULES = field_names(LabelRules)


def final_config(config: Config, grid: HeadGrid, choice: Choice) -> Config:
    """Return how one more head of the best setting is trained, on all folds.

    It takes as many epochs as the setting's folds took at the median; a solver as many iterations
    as it needs, since an optimum is where it is, however many steps away.
    """
    trained = trained_config(config, grid.settings[choice.setting])
    if not stops_early(config):
        return trained
    epochs = choice.median_epochs
    return replace(trained, max_epochs=epochs, patience=epochs, min_delta=0.0)


def describe_training(
    config: Config, grid: HeadGrid, choice: Choice, is_tested: bool = False
) -> Training:
    """Return how the registered head of a fit was trained, and what was selected by which figure.

    Parameters
    ----------
    choice
        The best setting, and its best head; of a calibrated fit with its temperature.
    is_tested
        Whether there are held-out tiles that a final head is tested on.
    """
    setting = grid.settings[choice.setting]
    if config.final:
        trained = final_config(config, grid, choice)
    else:
        trained = trained_config(config, setting)
    names = [*MODEL, *hyperparameters(trained)]
    if config.final:  # as many epochs as it is given: nothing stops them
        names = [name for name in names if name not in EARLY_STOPPING]
    settings = values_of(trained, tuple(names))
    others = (*names, *LABEL_RULES)
    swept = {k: v for k, v in setting.overrides.items() if path_of(k)[0] not in others}
    return Training(
        registered_head(config, grid, choice), settings | swept, values_of(trained, LABEL_RULES),
        selection(config, grid), untouched(config, grid, is_tested),
    )  # fmt: skip


def registered_head(config: Config, grid: HeadGrid, choice: Choice) -> str:
    """Return which head of a fit is registered, for people."""
    if config.probe == "knn":
        return "none: votes of neighbours are a baseline, no model is registered"
    several, name = len(grid.settings) > 1, grid.settings[choice.setting].name
    of_setting = f" of the setting {name}" if several else ""
    if config.final:
        length = f", for {choice.median_epochs} epochs" if stops_early(config) else ""
        if length and config.schedule != "constant":
            length += f" of a {config.schedule} schedule over {config.max_epochs}"
        return f"one more{of_setting}, trained on all folds{length}"
    fold = lone_fold(config) if grid.is_single else choice.fold
    others = "" if len(grid.folds) == 1 else f", one of {len(grid.folds)}"
    return f"that of fold {fold}{of_setting}{others}: trained on the other folds"


def selection(config: Config, grid: HeadGrid) -> dict[str, str]:
    """Return what a fit selects, in this order, and by which figure."""
    several_folds, choices = len(grid.folds) > 1, {}
    if stops_early(config):
        on = "training tiles" if config.monitor == "train/loss" else "fold"
        best = f"{MONITORS[config.monitor]} {config.monitor}"
        choices["epoch"] = f"{best}, of each head on its own {on}"
    if len(grid.settings) > 1:
        folds = ", ".join(map(str, grid.folds))
        choices["setting"] = (
            f"highest macro F1, the mean over fold{'s' * several_folds} {folds}; "
            f"one of {len(grid.settings)}"
        )
    if config.calibrate:
        choices["temperature"] = "lowest cross entropy of the validation tiles"
    if config.final and stops_early(config):
        choices["length of the final head"] = "median of the best epochs of the setting's folds"
    elif several_folds and not config.final and config.probe != "knn":
        choices["registered head"] = "lowest validation/loss of the setting's folds"
    return choices


def untouched(config: Config, grid: HeadGrid, is_tested: bool) -> str | None:
    """Return the figures of a fit that have selected nothing, None where there are none.

    That one of several heads is registered by its loss is no matter of figures out of fold: they
    are of all of them.
    """
    if config.final and is_tested:
        return "best/test/*"
    touched = {"epoch", "setting", "temperature"} & set(selection(config, grid))
    if config.monitor == "train/loss":  # an epoch that no held-out tile has selected
        touched -= {"epoch"}
    split = "validation" if grid.is_single else "oof"
    return None if touched else f"best/{split}/*"
