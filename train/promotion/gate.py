"""The gate: what a model must show before it becomes the champion. Pure: figures in, lines out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from featurestore.spec.typed import nearest
from train.config.schema import ConfigError
from train.evaluation.metrics import CLASS, METRICS
from train.promotion.requirements import Gate

if TYPE_CHECKING:
    from train.evaluation.estimates import Estimate

Digests = Mapping[str, str]
ROUNDING = 1e-9  # 0.85 - 0.9 is below -0.05
NO_TILE = "no tile of it in the test view"
NO_CHAMPION = "no champion yet"


@dataclass(frozen=True)
class Check:
    """One line of the gate.

    Parameters
    ----------
    name
        What is looked at, for example ``floor: Fat``.
    passed
        Whether it holds.
    measured, required
        What is there, and what the gate asks.
    """

    name: str
    passed: bool
    measured: str
    required: str

    @property
    def kind(self) -> str:
        """The name without a class."""
        return self.name.partition(": ")[0]


@dataclass(frozen=True)
class Evidence:
    """What the gate judges.

    Parameters
    ----------
    classes
        Their names, by index.
    tiles
        Tiles of each class in the test view, by index.
    candidate
        Figures by name, see `train.evaluation.metrics.compute_metrics`.
    champion, differences
        The champion's figures on the same tiles, and by how much the candidate's are above; None
        where there is no champion.
    shared
        Slides and patients both in the training data and in the test view; None where the column
        is not in both.
    recorded, read
        Digests of the data: as the candidate's run recorded them, and as read now.
    earlier
        As read now, by the rule of runs that were recorded earlier.
    decisions
        How many decisions on the model have looked at this test set before.
    """

    classes: list[str]
    tiles: Sequence[int]
    candidate: Mapping[str, "Estimate"]
    champion: Mapping[str, "Estimate"] | None
    differences: Mapping[str, "Estimate"] | None
    shared: Mapping[str, int | None]
    recorded: Digests
    read: Digests
    earlier: Digests = field(default_factory=dict)
    decisions: int = 0


def run_checks(gate: Gate, evidence: Evidence) -> list[Check]:
    """Return every line of the gate, in the order of its file."""
    lines = [
        *_floors(gate, evidence),
        *_overall(gate, evidence),
        *_worse(gate, evidence),
        *_difference(gate, evidence),
        *_calibration(gate, evidence),
        *_shared(gate, evidence),
        *_test_set(gate, evidence),
    ]
    return [*lines, data_line(gate, evidence)] if gate.digests else lines


def failed_checks(lines: Sequence[Check]) -> list[Check]:
    """Return the lines that do not hold."""
    return [line for line in lines if not line.passed]


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


def files_line(changes: Mapping[str, Sequence[str] | None]) -> Check:
    """Return the line on the files of models.

    Parameters
    ----------
    changes
        By model, the candidate first: the files that are not as registered; None where no digest
        was recorded, which the candidate cannot afford.
    """
    messages, passed = [], True
    for place, (name, changed) in enumerate(changes.items()):
        if changed is None:
            messages.append(f"{name}: no digest recorded")
            passed = passed and place > 0
        elif changed:
            messages.append(f"{name}: {', '.join(changed)}")
            passed = False
        else:
            messages.append(f"{name}: as registered")
    return Check("files of the model", passed, "; ".join(messages), "the SHA-256 of registration")


def data_line(gate: Gate, evidence: Evidence) -> Check:
    """Return the line on the digests of the data.

    A digest is known if the gate lists it, or if not, if the candidate's run recorded it.
    """
    messages = []
    for name, digest in evidence.read.items():
        expected = gate.known.get(name) or evidence.recorded.get(name)
        if expected is None:
            messages.append(f"{name} is not recorded ({digest})")
        elif expected not in (digest, evidence.earlier.get(name)):
            whose = "the gate" if gate.known.get(name) else "the run"
            messages.append(f"{name} is {digest[:12]}, {expected[:12]} for {whose}")
    missing = [name for name in ("tiles", "embeddings") if name not in evidence.recorded]
    messages += [f"the run recorded no {name}" for name in missing if name not in evidence.read]
    measured = "; ".join(messages) or f"known: {', '.join(evidence.read)}"
    return Check("digests of the data", not messages, measured, "of the run, or listed in the gate")


def _floors(gate: Gate, evidence: Evidence) -> list[Check]:
    floor, lines = gate.floor, []
    for name, tiles in zip(evidence.classes, evidence.tiles, strict=True):
        least = floor.classes.get(name, floor.default)
        value = evidence.candidate[f"{floor.figure}/{name}"].value
        required = f"{floor.figure} at least {least:g}"
        passed, measured = value >= least - ROUNDING, f"{value:.4f}"
        if not tiles:
            passed, measured = name in floor.may_be_absent, NO_TILE
        lines.append(Check(f"floor: {name}", passed, measured, required))
    return lines


def _overall(gate: Gate, evidence: Evidence) -> list[Check]:
    lines = []
    for name, bound in gate.floor.overall.items():
        estimate, sign = evidence.candidate.get(name), 1 if METRICS[name].higher_is_better else -1
        required = f"at {'least' if sign > 0 else 'most'} {bound:g}"
        if estimate is None:
            why = "not computed: evidence.ordered=false"
            lines.append(Check(f"overall: {name}", False, why, required))
            continue
        passed = sign * (estimate.value - bound) >= -ROUNDING
        lines.append(Check(f"overall: {name}", passed, f"{estimate.value:.4f}", required))
    return lines


def _worse(gate: Gate, evidence: Evidence) -> list[Check]:
    most, figure = gate.worse, gate.floor.figure
    if most is None:
        return []
    required = f"{figure} at most {most:g} below"
    if evidence.differences is None:
        return [Check("worse", True, NO_CHAMPION, required)]
    lines = []
    for name, tiles in zip(evidence.classes, evidence.tiles, strict=True):
        value = evidence.differences[f"{figure}/{name}"].value
        passed, measured = value >= -most - ROUNDING, f"{value:+.4f}"
        if not tiles:
            passed, measured = name in gate.floor.may_be_absent, NO_TILE
        lines.append(Check(f"worse: {name}", passed, measured, required))
    return lines


def _difference(gate: Gate, evidence: Evidence) -> list[Check]:
    if gate.difference is None:
        return []
    required = f"macro F1: interval above {0 - gate.difference:g}"
    if evidence.differences is None:
        return [Check("difference", True, NO_CHAMPION, required)]
    difference = evidence.differences["f1_macro"]
    if not math.isfinite(difference.low):
        return [Check("difference", False, f"no interval: {difference.no_interval}", required)]
    interval = f"{difference.value:+.4f} ({difference.low:+.4f} .. {difference.high:+.4f})"
    return [Check("difference", difference.low > -gate.difference, interval, required)]


def _calibration(gate: Gate, evidence: Evidence) -> list[Check]:
    most = gate.calibration_error
    if most is None:
        return []
    value = evidence.candidate["calibration_error"].value
    return [Check("calibration", value <= most + ROUNDING, f"{value:.4f}", f"at most {most:g}")]


def _shared(gate: Gate, evidence: Evidence) -> list[Check]:
    lines = []
    for group, most in (("slides", gate.shared_slides), ("patients", gate.shared_patients)):
        if most is None:
            continue
        count, required = evidence.shared.get(group), f"at most {most} in training and test"
        if count is None:
            measured = "not known: the column is not in both"
            passed = group == "patients" and gate.unknown_patients == "allow"
        else:
            measured, passed = f"{count}", count <= most
        lines.append(Check(f"shared {group}", passed, measured, required))
    return lines


def _test_set(gate: Gate, evidence: Evidence) -> list[Check]:
    """Ask for fresh tiles once these have decided often: who tries on passes by chance."""
    if (most := gate.test_set_decisions) is None:
        return []
    number = evidence.decisions + 1
    required = f"at most {most} decisions; then held-out tiles that nobody has looked at"
    return [Check("test set", number <= most, f"decision {number} by these tiles", required)]
