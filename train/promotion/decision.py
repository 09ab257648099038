"""A decision on an alias: as tags, as a page of Markdown, and as a table in the terminal."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from featurestore.console.tables import print_table
from featurestore.printing import Console
from featurestore.redaction import redacted
from train.evaluation.metrics import spec_of
from train.promotion.checks import Check, failed_checks

if TYPE_CHECKING:  # it imports torch
    from train.promotion.candidate import CandidateEvaluation

MARKUP = re.compile(r"[\\`*\[\]<>|~$&]|(?<!\w)_|_(?!\w)")

HEADS = ("line", "verdict", "found", "asked", "margin")
HOLDS = {True: "holds", False: "DOES NOT HOLD"}


@dataclass(frozen=True)
class Decision:
    """Who decided what about an alias, when, and why.

    Parameters
    ----------
    outcome
        ``passed`` and then ``promoted``, ``refused``, ``restored`` or ``rolled back``.
    model, version, alias, champion
        Which version, and the one that had the alias (a number, or none).
    author, command, commit, time
        By whom, how, with which code, when (UTC).
    gate, gate_digest
        The gate's file and its SHA-256; empty for a rollback.
    lines
        Of the gate.
    evaluation
        None where nothing was evaluated.
    why
        What the author says of it.
    """

    outcome: str
    model: str
    version: str
    alias: str
    champion: str
    author: str
    command: str
    commit: str
    time: datetime
    gate: str = ""
    gate_digest: str = ""
    lines: Sequence[Check] = ()
    evaluation: "CandidateEvaluation | None" = None
    why: str = ""

    @property
    def title(self) -> str:
        """What was decided, in a sentence."""
        version, alias = f"{self.model} version {self.version}", self.alias
        return {
            "promoted": f"Promoted: {version} is {alias}",
            "passed": f"Passed: {version} may become {alias}",
            "refused": f"Refused: {version} does not become {alias}",
            "restored": f"Restored: {version} is {alias} again",
            "rolled back": f"Rolled back: {version} is {alias} no more",
        }[self.outcome]

    @property
    def reason(self) -> str:
        """Why, in words: what the author says, else what the gate found."""
        failed = "; ".join(line.sentence for line in failed_checks(self.lines))
        held = f"all {len(self.lines)} lines of the gate hold" if self.lines else ""
        return self.why or failed or held

    @property
    def figures(self) -> str:
        """Macro F1 with its interval, and by how much it is above the champion's."""
        if self.evaluation is None or "f1_macro" not in self.evaluation.evidence.candidate:
            return ""
        evidence = self.evaluation.evidence
        figure = evidence.candidate["f1_macro"]
        text = f"macro F1 {figure.value:.4f} {figure.text(4)}".rstrip()
        if evidence.differences is None:
            return text
        apart = evidence.differences["f1_macro"]
        return f"{text}, {apart.value:+.4f} against version {self.champion}"

    @property
    def file(self) -> str:
        """Where its page lies among the artifacts of the version's run."""
        return f"promotion/{self.time.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}-{self.alias}.md"


def tags(decision: Decision, page: str) -> dict[str, str]:
    """Return the tags of the version: short facts, and where the page is.

    Each kind of line has one, ``gate.floor`` for example: passed, or the classes that failed.
    """
    values = {
        "decision": decision.outcome,
        "alias": decision.alias,
        "author": decision.author,
        "time": decision.time.isoformat(" ", "seconds"),
        "champion": decision.champion,
        "commit": decision.commit,
        "report": page,
    }
    if decision.gate:
        values |= {"gate_sha256": decision.gate_digest, "failed": summary(decision.lines)}
    kinds: dict[str, list[str]] = {line.kind: [] for line in decision.lines}
    for line in failed_checks(decision.lines):
        kinds[line.kind].append(f"{line.name} {line.measured}")
    for kind, wrong in kinds.items():
        outcome = f"failed: {'; '.join(wrong)}" if wrong else "passed"
        values[f"gate.{kind.replace(' ', '_')}"] = outcome
    return values


def summary(lines: Sequence[Check]) -> str:
    """Return the names of the lines that failed."""
    return "; ".join(line.name for line in failed_checks(lines)) or "none"


def show(decision: Decision, console: Console) -> None:
    """Print the lines of the gate."""
    columns = dict(zip(HEADS, zip(*map(_row, decision.lines), strict=True), strict=True))
    beside = f", compared with version {decision.champion}" if decision.champion != "none" else ""
    title = f"{decision.title}{beside}"
    print_table(pa.table(columns), console, title, limit=len(decision.lines))


def _row(line: Check) -> list[str]:
    return [line.name, HOLDS[line.passed], line.measured, line.required, line.margin_text]


def page(decision: Decision) -> str:
    """Return the decision and its evidence as Markdown."""
    heading = f"# {cell(decision.title)}"
    about = {
        "why": decision.why,
        "alias": decision.alias,
        "version that had it": decision.champion,
        "author": decision.author,
        "time": decision.time.isoformat(" ", "seconds"),
        "command": decision.command,
        "commit": decision.commit,
        "gate": f"{decision.gate}, sha256 {decision.gate_digest}" if decision.gate else "",
    }
    facts = [f"- {name}: {cell(value)}" for name, value in about.items() if value]
    parts = ["\n".join([heading, "", *facts])]
    if decision.lines:
        parts.append(_gate(decision.lines))
    if decision.evaluation and decision.evaluation.notes:
        parts.append("\n".join(f"- {cell(note)}" for note in decision.evaluation.notes))
    if decision.evaluation:
        parts += [_figures(decision.evaluation), _data(decision.evaluation)]
    return "\n\n".join(parts) + "\n"


def _gate(lines: Sequence[Check]) -> str:
    """Return every line in a table, and before it in sentences those that do not hold."""
    failed = failed_checks(lines)
    heading = (
        f"## {len(failed)} of {len(lines)} lines of the gate do not hold"
        if failed
        else f"## All {len(lines)} lines of the gate hold"
    )
    sentences = "\n".join(f"- {cell(line.sentence)}" for line in failed)
    rows = table(list(HEADS), [_row(line) for line in lines])
    return "\n\n".join(filter(None, [heading, sentences, rows]))


def _figures(evaluation: "CandidateEvaluation") -> str:
    evidence, rows = evaluation.evidence, []
    for name, figure in evidence.candidate.items():
        spec = spec_of(name)
        if spec is None or "gate" not in spec.shown_in:
            continue
        sides = [f"{figure.value:.4f} {figure.text(4)}"]
        if evidence.champion and evidence.differences:
            old, apart = evidence.champion[name], evidence.differences[name]
            sides.append(f"{old.value:.4f} {old.text(4)}")
            sides.append(f"{apart.value:+.4f} {apart.text(4, '+')}")
        rows.append([name, *sides])
    heads = ["figure", "candidate", *(["champion", "difference"] if evidence.champion else [])]
    note = f"On the same tiles; beside each its 95 % interval over {evaluation.clusters}."
    return f"## Figures\n\n{note}\n\n{table(heads, rows)}"


def _data(evaluation: "CandidateEvaluation") -> str:
    evidence, run = evaluation.evidence, evaluation.run
    counts = zip(evidence.classes, evidence.tiles, strict=True)
    tiles = [[name, f"{count:,}"] for name, count in counts]
    rows = [
        [name, evaluation.uris[name], digest, evidence.recorded.get(name, "not recorded")]
        for name, digest in evidence.read.items()
    ]
    rules = [f"- {name}: {cell(str(value))}" for name, value in evaluation.rules.items()]
    return "\n\n".join(
        [
            f"## Test view\n\n{sum(evidence.tiles):,} tiles of {evaluation.slides:,} slides, which "
            f"{evidence.decisions} decisions on this model had looked at before",
            table(["class", "tiles"], tiles),
            "\n".join(rules),
            "## Data\n\n" + table(["artifact", "read from", "sha256", "recorded by the run"], rows),
            f"- run: {cell(run.run)}\n- its commit: {cell(run.commit or 'not known')}",
        ]
    )


def table(heads: list[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        lines.append("| " + " | ".join(map(cell, row)) + " |")
    return "\n".join(lines)


def cell(text: str) -> str:
    """Return a text, without secrets, that Markdown shows as it is on one line, also in a table."""
    return MARKUP.sub(r"\\\g<0>", " ".join(redacted(text).split()))
