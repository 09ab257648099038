"""What a run is called: by what tells it from others of its experiment."""

from dataclasses import MISSING, fields

from train.config.encoders import encoders
from train.config.hyperparameters import EARLY_STOPPING, MODEL, hyperparameters
from train.config.schema import Config
from train.config.sweep import settings

LONGEST = 200  # of the 250 characters that MLflow takes
STRATEGIES = {"stratified": "stratified", "stratified_group": "group"}
METHOD = ("head", "probe", "optimizer")  # stand in the name whatever they are
LENGTH = ("batch_size", "max_epochs", *EARLY_STOPPING)  # how long it trains: not in the name
REGISTERED = "models:/"


def run_name(config: Config) -> str:
    """Return the name of a run: the configured one, or what it does on what.

    Of a fit: the cohort or the encoder, the folds' strategy and which fold, the method, then the
    keys of training that are swept, or not as ``data=`` alone would have them.

    Examples
    --------
    >>> config = Config(fold=4, kfold_strategy="stratified_group", optimizer="lbfgs")
    >>> config.data.name = "virchow2"
    >>> run_name(config)
    'virchow2 group fold 4 lbfgs'
    """
    if config.tracking.run_name:
        return config.tracking.run_name
    words: list[str] = [] if config.mode == "fit" else [config.mode]
    words += [subject(config)]
    if config.fold is not None:
        words += [STRATEGIES[config.kfold_strategy], folds(config)]
    if config.mode == "fit":
        words += [method(config), *differing(config)]
    elif config.checkpoint:
        words += [checkpoint(config.checkpoint)]
    return " ".join(words)[:LONGEST]


def subject(config: Config) -> str:
    """Return what a run is about: its encoders if there are some to pick from, else its cohort."""
    return config.data.encoder or " or ".join(encoders(config)) or config.data.name


def folds(config: Config) -> str:
    """Return which folds a run validates on."""
    if isinstance(config.fold, list):
        return f"folds {' '.join(map(str, config.fold))}"
    return "all folds" if config.fold == "all" else f"fold {config.fold}"


def method(config: Config) -> str:
    """Return what trains the heads: a head that is not linear, a probe, or an optimizer."""
    if config.head != "linear":
        return config.head
    return config.optimizer if config.probe == "logistic" else config.probe


def differing(config: Config) -> list[str]:
    """Return the keys of training that are swept, or not as the choice of data alone has them."""
    swept = [*settings(config)[0].overrides] if len(settings(config)) > 1 else []
    default = {entry.name: entry.default for entry in fields(Config)} | {**config.presets}
    keys = dict.fromkeys((*MODEL, *hyperparameters(config)))
    return [f"sweep {' '.join(swept)}"] * bool(swept) + [
        f"{key} {getattr(config, key)}"
        for key in keys
        if key not in (*METHOD, *LENGTH, *swept)
        and default[key] not in (MISSING, getattr(config, key))
    ]


def checkpoint(uri: str) -> str:
    """Return what a checkpoint is called in the name of a run: a registered one by its version."""
    if uri.startswith(REGISTERED):
        return uri.removeprefix(REGISTERED).replace("/", " version ")
    return f"run {uri.removeprefix('runs:/')[:8]}" if uri.startswith("runs:/") else "checkpoint"
