"""The gate: what a model must show before it becomes the champion, as a file says it."""

from featurestore.spec.typed import nearest
from train.config.schema import ConfigError
from train.evaluation.metrics import CLASS, METRICS
from train.promotion.requirements import Gate


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
