"""What a configuration must not say: values that make no sense, alone or together."""

import dataclasses
import re

from featurestore.errors import ConfigError
from featurestore.spec.trees import leaves
from featurestore.spec.typed import nearest
from train.config.hyperparameters import method, unused
from train.config.schema import HEADS, OPTIMIZERS, PROBES, SOLVERS, Config

EXPERIMENT_LENGTH = 500  # of MLflow's names
MODEL_LENGTH = 256 - len(".promotion")  # of MLflow's names, that of the lock beside a model too


def check(config: Config) -> None:
    """Refuse a mode without the key that it needs, and values that do not go together."""
    if config.mode in ("fit", "validate") and config.fold is None:
        raise ConfigError(
            f"mode={config.mode} needs a fold to validate on",
            found="fold is not set",
            fix=f"set fold to one of 0 .. {config.k - 1}, for example fold={config.k - 1}",
        )
    if (config.mode == "fit") != (config.checkpoint is None):
        fitted = config.mode == "fit"
        raise ConfigError(
            f"mode={config.mode} {'takes no' if fitted else 'needs a'} checkpoint",
            found=f"checkpoint={config.checkpoint}",
            fix="leave it out, or set for example mode=test"
            if fitted
            else "set for example checkpoint=models:/tissue-probe/1",
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
    if config.memory_limit:
        size(config.memory_limit)
    _check_snapshot(config)
    _check_repeated(config)
    _check_fold(config)
    _check_floor(config)
    _check_shots(config)
    _check_onnx(config)
    _check_solver(config)
    _check_warmup(config)
    _check_probe(config)
    _check_calibration(config)
    _check_tracking(config)


def _check_snapshot(config: Config) -> None:
    """Refuse to predict tiles that a snapshot has not, and to look for folds that it has."""
    if config.data.snapshot and config.mode == "predict":
        raise ConfigError(
            "A snapshot holds tiles to train and to test on, none to predict",
            found=f"mode=predict data.snapshot={config.data.snapshot}",
            fix="leave data.snapshot out, and set data.predict_tiles",
        )


def _check_repeated(config: Config) -> None:
    """Refuse a list that holds something twice: the same head would be trained twice."""
    for path, values in leaves(dataclasses.asdict(config)):
        if isinstance(values, list) and len(set(values)) < len(values):
            key = ".".join(path)
            again = next(value for value in values if values.count(value) > 1)
            raise ConfigError(
                f"{key} holds {again!r} more than once", found=f"{key}={values}",
                fix="leave all but one out",
            )  # fmt: skip


def _check_fold(config: Config) -> None:
    """Refuse heads side by side where there can be none."""
    if config.fold == []:
        raise ConfigError(
            "fold names no fold", found="fold=[]", fix="set for example fold=[0,1,4] or fold=all"
        )
    if not is_sweep(config):
        return
    if config.mode != "fit":
        raise ConfigError(
            f"mode={config.mode} takes one fold and no sweep",
            found=" ".join(siblings(config)),
            fix="set one fold, for example fold=4"
            if several_folds(config)
            else f"leave {' '.join(siblings(config))} out",
        )
    if config.head != "linear":
        raise ConfigError(
            "Only linear heads are trained side by side, or in closed form",
            found=f"head={config.head} {' '.join(siblings(config))}",
            fix="set head=linear, or leave the others out",
        )


def _check_shots(config: Config) -> None:
    """Refuse draws of slides that nothing is drawn for, or that are drawn twice over."""
    sweep = config.sweep
    if sweep.draw and not sweep.shots:
        raise ConfigError(
            "sweep.draw draws slides, and no number of them is named",
            found=f"sweep.draw={sweep.draw}",
            fix="set for example sweep.shots=[1,2,4,8], or leave sweep.draw out",
        )
    rival = {
        "final=true": config.final,
        f"sweep.train_fraction={sweep.train_fraction}": bool(sweep.train_fraction),
    }
    for argument, is_set in rival.items():
        if sweep.shots and is_set:
            raise ConfigError(
                "sweep.shots says which slides a head is trained on, and so does another key",
                found=f"sweep.shots={sweep.shots} {argument}",
                fix="leave one of them out",
            )


def _check_floor(config: Config) -> None:
    """Refuse a least sum of coverages that no tile can reach, each class covering it wholly."""
    most = len(config.class_indices)
    for floor in [config.tissue_prop_min, *config.sweep.tissue_prop_min]:
        if most and floor > most:
            raise ConfigError(
                f"tissue_prop_min is more than {most} classes can cover of a tile",
                found=f"{floor}",
                fix=f"set it within [0, {most}]; coverages of classes that do not overlap reach 1",
            )


def _check_solver(config: Config) -> None:
    if config.optimizer in SOLVERS and config.precision != "float32":
        raise ConfigError(
            "An optimum is not found in half precision",
            found=f"optimizer={config.optimizer} precision={config.precision}",
            fix="set precision=float32",
        )


def _check_warmup(config: Config) -> None:
    """Refuse a warm-up that would not end."""
    if config.warmup_epochs >= config.max_epochs and config.warmup_epochs:
        raise ConfigError(
            "The learning rate would rise until the last epoch",
            found=f"warmup_epochs={config.warmup_epochs} max_epochs={config.max_epochs}",
            fix="set warmup_epochs to fewer epochs than max_epochs",
        )


def _check_probe(config: Config) -> None:
    """Refuse what a probe without iterations has no use for."""
    data = config.data
    tested = data.test_tiles or data.snapshot or data.builder != "none"
    if config.final and config.probe == "knn" and not tested:
        raise ConfigError(
            "final=true of probe=knn evaluates held-out tiles, and none are named",
            found="data.test_tiles is not set",
            fix="set data.test_tiles, or leave final out: the folds say how good it is",
        )
    decays = [config.weight_decay, *config.sweep.weight_decay]
    if config.probe == "lda" and not all(0 <= decay <= 1 for decay in decays):
        raise ConfigError(
            "weight_decay is the shrinkage of probe=lda, in [0, 1]",
            found=f"{decays}",
            fix="set for example weight_decay=0.1",
        )


def _check_calibration(config: Config) -> None:
    """Refuse a temperature where there are no weights to put it in."""
    if config.calibrate and (config.head != "linear" or config.probe == "knn"):
        raise ConfigError(
            "A temperature goes into the weights of a linear head",
            found=f"calibrate=true head={config.head} probe={config.probe}",
            fix="leave calibrate out"
            + (", or set head=linear" if config.head != "linear" else ", or pick another probe"),
        )


def _check_onnx(config: Config) -> None:
    """Refuse a file of a model where there is none."""
    if config.tracking.onnx and config.mode == "fit" and config.probe == "knn":
        raise ConfigError(
            "Votes of neighbours make no model that ONNX could hold",
            found="tracking.onnx=true probe=knn",
            fix="leave tracking.onnx out, or pick another probe",
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
        embeddings = config.data.embeddings
        several = isinstance(embeddings, dict) and config.data.encoder is None
        for name in embeddings if several and embeddings else [""]:
            model = f"{config.tracking.model}-{name}" if name else config.tracking.model
            check_model_name(model, "tracking.model")


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


def is_sweep(config: Config) -> bool:
    """Return whether heads are trained side by side: of several folds, or of several settings."""
    return bool(siblings(config))


def siblings(config: Config) -> list[str]:
    """Return the arguments for which heads are trained side by side."""
    arguments = [f"fold={config.fold}"] if several_folds(config) else []
    swept = leaves({"sweep": dataclasses.asdict(config.sweep)})
    arguments += [f"{'.'.join(path)}={value}" for path, value in swept if value]
    arguments += ["final=true"] if config.final else []
    if config.mode == "fit":
        arguments += [f"optimizer={config.optimizer}"] if config.optimizer in SOLVERS else []
        arguments += [f"probe={config.probe}"] if config.probe != "logistic" else []
    return arguments


def several_folds(config: Config) -> bool:
    """Return whether more than one fold is asked for."""
    return config.fold is not None and not isinstance(config.fold, int)


def steadier(config: Config) -> str:
    """Return what would keep training from diverging, of that which is not done yet."""
    solved = config.optimizer in SOLVERS or config.probe != "logistic"
    key = "weight_decay" if solved else "learning_rate"
    swept = "sweep." if getattr(config.sweep, key) else ""
    first = f"{'raise' if solved else 'lower'} {swept}{key}"
    return first if config.normalize == "zscore" else f"{first}, or set normalize=zscore"


def lone_fold(config: Config) -> int | None:
    """Return the fold that is asked for; None where there is none, or several are."""
    return config.fold if isinstance(config.fold, int) else None


def asked_folds(config: Config, folds: list[int]) -> list[int]:
    """Return the folds that are asked for, of those that there are."""
    if config.fold == "all":
        return folds
    several = config.fold if isinstance(config.fold, list) else [lone_fold(config)]
    return [fold for fold in several if fold is not None]


def size(limit: str) -> int:
    """Return the bytes of, for example, 4GB or 512 MiB, as DuckDB reads them."""
    units = r"b|([kmgt])(?:(i?)b)?"
    size = re.fullmatch(rf"\s*(\d+\.?\d*|\.\d+)\s*(?:{units})\s*", limit.lower(), re.ASCII)
    if not size or not float(size.group(1)):
        raise ConfigError(
            "memory_limit is not a size", found=f"{limit!r}", fix="set for example memory_limit=4GB"
        )
    number, unit, binary = size.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index(unit or " "))


def check_sweep(config: Config) -> None:
    """Refuse a list of a key that does nothing for a way to train.

    What a run of earlier code has recorded may have one: it is replayed all the same.

    Raises
    ------
    ConfigError
        With the key.
    """
    for key in unused(config):
        if values := getattr(config.sweep, key, []):
            raise ConfigError(
                f"{method(config)} has no {key}",
                found=f"sweep.{key}={values}",
                fix=f"leave sweep.{key} out",
            )
