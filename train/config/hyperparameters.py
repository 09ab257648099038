"""Which keys decide how a configuration's heads are trained; the others do nothing."""

from train.config.schema import SOLVERS, Config

MODEL = ("head", "probe", "normalize", "precision")
"""What is trained, on which numbers."""
EARLY_STOPPING = ("monitor", "patience", "min_delta")
DESCENT = (
    "optimizer", "learning_rate", "weight_decay", "label_smoothing", "schedule", "warmup_epochs",
    "batch_size", "max_epochs",
    *EARLY_STOPPING,
)  # fmt: skip
SOLVER = ("optimizer", "weight_decay", "label_smoothing", "max_epochs")
NEIGHBOURS = ("neighbours", "neighbour_weights", "neighbour_metric")
PROBE = {
    "ridge": ("weight_decay",),
    "lda": ("weight_decay",),
    "prototype": (),
    "knn": NEIGHBOURS,
}
"""Of those without iterations, by the name of the probe."""
HYPERPARAMETERS = (*DESCENT, "hidden", *NEIGHBOURS)


def hyperparameters(config: Config) -> tuple[str, ...]:
    """Return the keys that act on the training of a configuration's heads."""
    if config.head != "linear":
        return (*DESCENT, "hidden")
    if config.probe != "logistic":
        return PROBE[config.probe]
    return SOLVER if config.optimizer in SOLVERS else DESCENT


def unused(config: Config) -> tuple[str, ...]:
    """Return the keys of training that do nothing: all of them where nothing is trained."""
    if config.mode != "fit":
        return (*MODEL, *HYPERPARAMETERS)
    return tuple(key for key in HYPERPARAMETERS if key not in hyperparameters(config))


def method(config: Config) -> str:
    """Return the argument that decides which keys act."""
    if config.head != "linear":
        return f"head={config.head}"
    if config.probe != "logistic":
        return f"probe={config.probe}"
    return f"optimizer={config.optimizer}"


def stops_early(config: Config) -> bool:
    """Return whether heads are kept as they were at the epoch of their best monitored figure."""
    return set(EARLY_STOPPING) <= set(hyperparameters(config))
