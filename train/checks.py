"""What a configuration must not say: values that make no sense, alone or together."""

import dataclasses
import difflib
import re

from train.schema import HEADS, OPTIMIZERS, PROBES, SOLVERS, Config, ConfigError

EXPERIMENT_LENGTH = 500  # of MLflow's names
MODEL_LENGTH = 256 - len(".promotion")  # of MLflow's names, that of the lock beside a model too


def check(config: Config) -> None:
    """Refuse a mode without the key that it needs, and numbers that make no sense."""
    if config.mode in ("fit", "validate") and config.fold is None:
        raise ConfigError(
            f"mode={config.mode} needs a fold to validate on",
            found="fold is not set",
            fix=f"set fold to one of 0 .. {config.k - 1}, for example fold={config.k - 1}",
        )
    if (config.mode == "fit") != (config.checkpoint is None):
        raise ConfigError(
            f"mode={config.mode} {'takes no' if config.mode == 'fit' else 'needs a'} checkpoint",
            found=f"checkpoint={config.checkpoint}",
            fix="set for example mode=test checkpoint=models:/tissue-probe/1",
        )
    optimizers = (*OPTIMIZERS, *SOLVERS)
    for key, named in (("head", HEADS), ("optimizer", optimizers), ("probe", PROBES)):
        name = getattr(config, key)
        if name not in named:
            raise ConfigError(
                f"There is no {key} {name!r}",
                found=f"{key}: {', '.join(named)}{nearest(name, list(named))}",
                fix="pick one of them" + (key != "probe") * f", or add yours to train/{key}s.py",
            )
    if config.resume not in (True, False, "auto"):
        raise ConfigError(
            "resume is neither true, nor false, nor auto",
            found=f"resume={config.resume}",
            fix="set for example resume=true",
        )
    if config.memory_limit:
        size(config.memory_limit)
    _check_fold(config)
    _check_sweep(config)
    _check_solver(config)
    _check_probe(config)
    _check_calibration(config)
    _check_tracking(config)
    for key, least in (
        ("batch_size", 1),
        ("max_epochs", 1),
        ("patience", 1),
        ("k", 2),
        ("neighbours", 1),
    ):
        if getattr(config, key) < least:
            raise ConfigError(
                f"{key} is too small", found=f"{getattr(config, key)}", fix=f"at least {least}"
            )


def _check_fold(config: Config) -> None:
    """Refuse a fold that is no number, and packs of heads where there can be none."""
    folds = config.fold if isinstance(config.fold, list) else [config.fold]
    if config.fold not in (None, "all") and not all(type(fold) is int for fold in folds):
        raise ConfigError(
            "fold is neither a number, nor a list of numbers, nor all",
            found=f"fold={config.fold}",
            fix="set for example fold=4, fold=[0,1,4] or fold=all",
        )
    if not packed(config):
        return
    if config.mode != "fit":
        raise ConfigError(
            f"mode={config.mode} takes one fold and no sweep",
            found=f"fold={config.fold}",
            fix="set for example fold=4",
        )
    if config.head != "linear":
        raise ConfigError(
            "Only linear heads are trained side by side",
            found=f"head={config.head}",
            fix="set head=linear, or one fold and no sweep",
        )


def _check_solver(config: Config) -> None:
    if config.optimizer in SOLVERS and config.precision != "float32":
        raise ConfigError(
            "An optimum is not found in half precision",
            found=f"optimizer={config.optimizer} precision={config.precision}",
            fix="set precision=float32",
        )


def _check_probe(config: Config) -> None:
    """Refuse what a probe without iterations has no use for."""
    if config.probe == "logistic":
        return
    unused = ["learning_rate", "label_smoothing"]
    unused += ["weight_decay"] if config.probe in ("prototype", "knn") else []
    for key in unused:
        if getattr(config.sweep, key):
            raise ConfigError(
                f"probe={config.probe} has no {key}",
                found=f"sweep.{key}={getattr(config.sweep, key)}",
                fix=f"leave sweep.{key} out",
            )
    if config.final and config.probe == "knn":
        raise ConfigError(
            "probe=knn has no weights that a final head could be trained to",
            found="final=true",
            fix="leave final out; the folds say how good it is",
        )
    decays = [config.weight_decay, *config.sweep.weight_decay]
    if config.probe == "lda" and not all(0 <= decay <= 1 for decay in decays):
        raise ConfigError(
            "weight_decay is the shrinkage of probe=lda, in [0, 1]",
            found=f"{decays}",
            fix="set for example weight_decay=0.1",
        )


def _check_calibration(config: Config) -> None:
    """Refuse a temperature where there are no weights to put it in, and shares out of range."""
    if config.calibrate and (config.head != "linear" or config.probe == "knn"):
        raise ConfigError(
            "A temperature goes into the weights of a linear head",
            found=f"calibrate=true head={config.head} probe={config.probe}",
            fix="leave calibrate out, or set head=linear",
        )
    if config.abstain_below is not None and not 0 < config.abstain_below <= 1:
        raise ConfigError(
            "abstain_below is a probability, in (0, 1]",
            found=f"{config.abstain_below}",
            fix="set for example abstain_below=0.8",
        )


def _check_tracking(config: Config) -> None:
    """Refuse what MLflow would refuse as a name, some of it after the fit alone."""
    if not config.tracking.enabled:
        return
    name = config.tracking.experiment
    if not 0 < len(name) <= EXPERIMENT_LENGTH:
        raise ConfigError(
            f"MLflow takes no experiment of {len(name)} characters",
            found=f"tracking.experiment={name}",
            fix=f"write 1 to {EXPERIMENT_LENGTH} of them",
        )
    if registers(config):
        check_model_name(config.tracking.model, "tracking.model")


def check_model_name(name: str, key: str) -> None:
    """Refuse a name that the registry does not take, or that no ``models:/`` URI can carry.

    A test holds it to MLflow's own rule, which would have to be imported.

    Raises
    ------
    ConfigError
        It is such a name.
    """
    odd = sorted({sign for sign in name if sign in "/:?" or not sign.isprintable()})
    empty = not name.strip() or name == "." or name.startswith("..")
    if odd or empty or len(name) > MODEL_LENGTH:
        raise ConfigError(
            f"{name[:MODEL_LENGTH]!r} cannot be the name of a registered model",
            found=f"{key} has {', '.join(map(repr, odd))}" if odd else f"{len(name)} characters",
            fix=f"write 1 to {MODEL_LENGTH} characters without / : ? and line breaks, for example "
            f"{key}=tissue-probe",
        )


def registers(config: Config) -> bool:
    """Return whether a model is registered at the end."""
    return config.tracking.register and config.mode == "fit" and config.probe != "knn"


def _check_sweep(config: Config) -> None:
    for fraction in config.sweep.train_fraction:
        if not 0 < fraction <= 1:
            raise ConfigError(
                "sweep.train_fraction is a share of the slides, in (0, 1]",
                found=f"{fraction}",
                fix="set for example sweep.train_fraction=[0.01,0.1,1.0]",
            )
    for strategy in config.sweep.kfold_strategy:
        if strategy not in ("stratified", "stratified_group"):
            raise ConfigError(
                f"There is no kfold_strategy {strategy!r}",
                found=f"sweep.kfold_strategy={config.sweep.kfold_strategy}",
                fix="set sweep.kfold_strategy=[stratified,stratified_group]",
            )


def packed(config: Config) -> bool:
    """Return whether heads are trained side by side: of several folds, or of several settings."""
    swept = [value for value in dataclasses.asdict(config.sweep).values() if value]
    one_fold = config.fold is None or isinstance(config.fold, int)
    solved = config.optimizer in SOLVERS or config.probe != "logistic"
    return config.final or bool(swept) or not one_fold or (config.mode == "fit" and solved)


def alone(config: Config) -> bool:
    """Return whether one linear head is trained."""
    return config.mode == "fit" and config.head == "linear" and not packed(config)


def size(limit: str) -> int:
    """Return the bytes of, for example, 4GB or 512 MiB, as DuckDB reads them."""
    found = re.fullmatch(r"\s*([\d.]+)\s*([kmgt]?)(i?)b?\s*", limit.lower())
    if not found:
        raise ConfigError(
            "memory_limit is not a size", found=f"{limit!r}", fix="set for example memory_limit=4GB"
        )
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index(unit or " "))


def nearest(name: str, names: list[str]) -> str:
    """Return a question that names the nearest of some names, or nothing if none is near."""
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
