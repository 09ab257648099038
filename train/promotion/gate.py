"""The gate: what a model must show before it becomes the champion, as a file says it."""

from dataclasses import dataclass, field
from typing import Literal

from featurestore.spec.typed import nearest
from train.config.schema import ConfigError, doc
from train.evaluation.metrics import CLASS, METRICS


@dataclass
class Floor:
    """The least figure of each class, and of all together."""

    figure: str = field(
        default="recall", metadata=doc("recall, f1 or another; `worse` looks at the same one")
    )
    default: float = field(default=0.5, metadata=doc("least figure of a class not named below"))
    classes: dict[str, float] = field(
        default_factory=dict, metadata=doc("class -> least figure of it")
    )
    may_be_absent: list[str] = field(
        default_factory=list, metadata=doc("classes that the test view need not have a tile of")
    )
    overall: dict[str, float] = field(
        default_factory=dict,
        metadata=doc("metric over all classes -> least value; most, where less is better"),
    )


@dataclass
class Gate:
    """Every key of configs/gate.yaml. One that is null is not asked for."""

    floor: Floor = field(default_factory=Floor, metadata=doc("floors per class"))
    worse: float | None = field(
        default=0.05, metadata=doc("most that a class may lose against the champion")
    )
    difference: float | None = field(
        default=0.02,
        metadata=doc("the 95 % interval of the macro F1's difference lies above minus this"),
    )
    calibration_error: float | None = field(
        default=0.1, metadata=doc("most expected calibration error")
    )
    shared_slides: int | None = field(
        default=0, metadata=doc("most slides both in the training data and the test view")
    )
    shared_patients: int | None = field(default=0, metadata=doc("most patients in both"))
    unknown_patients: Literal["allow", "fail"] = field(
        default="fail", metadata=doc("allow, if training or test tiles tell no patient_id")
    )
    test_set_decisions: int | None = field(
        default=20, metadata=doc("most decisions by one test set, this one included")
    )
    digests: bool = field(
        default=True, metadata=doc("data and model files are those that the run has recorded")
    )
    known: dict[str, str] = field(
        default_factory=dict,
        metadata=doc("artifact -> SHA-256 that it must have, whatever the run has recorded"),
    )


def check(gate: Gate) -> None:
    """Refuse numbers that make no sense.

    Raises
    ------
    ConfigError
        A share is not in [0, 1], a count is negative, a digest or a metric is none.
    """
    check_metrics(gate)
    shares = {
        "floor.default": gate.floor.default,
        **{f"floor.classes.{name}": least for name, least in gate.floor.classes.items()},
        **{key: getattr(gate, key) for key in ("worse", "difference", "calibration_error")},
    }
    for key, share in shares.items():
        if share is not None and not 0 <= share <= 1:
            raise ConfigError(f"{key} is no share", found=f"{share}", fix="set it within [0, 1]")
    for key in ("shared_slides", "shared_patients", "test_set_decisions"):
        if (count := getattr(gate, key)) is not None and count < 0:
            raise ConfigError(f"{key} is negative", found=f"{count}", fix="set it to 0 or more")
    for name, digest in gate.known.items():
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise ConfigError(
                f"known.{name} is no SHA-256", found=f"{digest!r}", fix="64 hexadecimal digits"
            )


def check_metrics(gate: Gate) -> None:
    """Refuse a gate that asks for a metric which there is not.

    Raises
    ------
    ConfigError
        With the nearest one.
    """
    of_classes = [key.removesuffix(f"/{CLASS}") for key in METRICS if key.endswith(f"/{CLASS}")]
    overall = [key for key, spec in METRICS.items() if "/" not in key and spec.final]
    named = {"floor.figure": ([gate.floor.figure], of_classes),
             "floor.overall": (list(gate.floor.overall), overall)}  # fmt: skip
    for key, (names, choices) in named.items():
        for name in names:
            if name not in choices:
                raise ConfigError(
                    f"{key} names no metric", found=f"{name!r}{nearest(name, choices)}",
                    fix=f"name one of {', '.join(choices)}",
                )  # fmt: skip


def check_classes(gate: Gate, classes: list[str]) -> None:
    """Refuse a gate that names a class which the model does not know.

    Raises
    ------
    ConfigError
        With the nearest class that it does know.
    """
    for name in [*gate.floor.classes, *gate.floor.may_be_absent]:
        if name not in classes:
            raise ConfigError(
                f"The gate names a class {name!r} that the model does not know",
                found=f"{', '.join(classes)}{nearest(name, classes)}",
                fix="correct its name in `floor`",
            )
