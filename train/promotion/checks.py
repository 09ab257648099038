"""The lines of the gate: evidence in, lines out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from train.evaluation.metrics import METRICS
from train.promotion.requirements import Gate

if TYPE_CHECKING:
    from train.evaluation.estimates import Estimate

Digests = Mapping[str, str]
ROUNDING = 1e-9  # 0.85 - 0.9 is below -0.05
NO_TILE = "no tile of it in the test view"
NO_CHAMPION = "no champion yet"
ALLOWED_PATIENTS = "allowed by unknown_patients of the gate"
GIVE_PATIENTS = "give the tiles a column patient_id, or set unknown_patients: allow in the gate"


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
    margin
        By how much it holds, in the figure's own unit, negative where it falls short; None where
        there is no figure.
    """

    name: str
    passed: bool
    measured: str
    required: str
    margin: float | None = None

    @property
    def kind(self) -> str:
        """The name without a class."""
        return self.name.partition(": ")[0]

    @property
    def margin_text(self) -> str:
        """The margin in words, empty where there is none."""
        if self.margin is None or not math.isfinite(self.margin):
            return ""
        if abs(self.margin) <= ROUNDING:
            return "at the limit"
        return f"{abs(self.margin):.4g} {'to spare' if self.margin > 0 else 'short'}"

    @property
    def sentence(self) -> str:
        """The line in words: figure, limit, and by how much."""
        verdict = "holds" if self.passed else "does not hold"
        by = f", {self.margin_text}" if self.margin_text else ""
        return f"{self.name} {verdict}: {self.measured}; asked is {self.required}{by}"


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
        lines.append(
            _of_figure(f"floor: {name}", f"{value:.4f}", required, value - least)
            if tiles
            else _without_tiles(f"floor: {name}", required, name in floor.may_be_absent)
        )
    return lines


def _of_figure(name: str, measured: str, required: str, margin: float) -> Check:
    """Return a line on a figure; one that is no number never holds."""
    return Check(name, margin >= -ROUNDING, measured, required, margin)


def _without_tiles(name: str, required: str, allowed: bool) -> Check:
    allows = "; allowed by floor.may_be_absent of the gate" if allowed else ""
    return Check(name, allowed, NO_TILE + allows, required)


def _overall(gate: Gate, evidence: Evidence) -> list[Check]:
    lines = []
    for name, bound in gate.floor.overall.items():
        estimate, sign = evidence.candidate.get(name), 1 if METRICS[name].higher_is_better else -1
        required = f"at {'least' if sign > 0 else 'most'} {bound:g}"
        if estimate is None:
            why = "not computed: evidence.ordered=false"
            lines.append(Check(f"overall: {name}", False, why, required))
            continue
        value = estimate.value
        lines.append(
            _of_figure(f"overall: {name}", f"{value:.4f}", required, sign * (value - bound))
        )
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
        lines.append(
            _of_figure(f"worse: {name}", f"{value:+.4f}", required, value + most)
            if tiles
            else _without_tiles(f"worse: {name}", required, name in gate.floor.may_be_absent)
        )
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
    margin = difference.low + gate.difference
    return [Check("difference", margin > 0, interval, required, margin)]


def _calibration(gate: Gate, evidence: Evidence) -> list[Check]:
    if (most := gate.calibration_error) is None:
        return []
    value = evidence.candidate["calibration_error"].value
    return [_of_figure("calibration", f"{value:.4f}", f"at most {most:g}", most - value)]


def _shared(gate: Gate, evidence: Evidence) -> list[Check]:
    lines = []
    for group, most in (("slides", gate.shared_slides), ("patients", gate.shared_patients)):
        if most is None:
            continue
        count, required = evidence.shared.get(group), f"at most {most} in training and test"
        name = f"shared {group}"
        if count is not None:
            lines.append(Check(name, count <= most, f"{count}", required, most - count))
            continue
        passed = group == "patients" and gate.unknown_patients == "allow"
        measured = "not known: training and test tiles do not both tell them"
        if group == "patients":
            measured += "; " + (ALLOWED_PATIENTS if passed else GIVE_PATIENTS)
        lines.append(Check(name, passed, measured, required))
    return lines


def _test_set(gate: Gate, evidence: Evidence) -> list[Check]:
    """Ask for fresh tiles once these have decided often: who tries on passes by chance."""
    if (most := gate.test_set_decisions) is None:
        return []
    number = evidence.decisions + 1
    required = f"at most {most} decisions; then held-out tiles that nobody has looked at"
    measured = f"decision {number} by these tiles"
    return [Check("test set", number <= most, measured, required, most - number)]
