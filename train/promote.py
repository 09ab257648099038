"""Promote a registered version, or refuse to, on evidence.

    python train/promote.py model=tissue-probe version=7 alias=champion
    python train/promote.py model=tissue-probe version=7 data.test_tiles=test_tiles.parquet
    python train/promote.py model=tissue-probe version=latest why="more slides of Nerve"
    python train/promote.py history model=tissue-probe
    python train/promote.py rollback model=tissue-probe
    python train/promote.py unlock model=tissue-probe

Candidate and champion are applied to the same test view, that of the candidate's run unless said
otherwise; configs/gate.yaml says what must hold. The decision stands in the tags of the version
and in `promotion/` among the artifacts of its run. `rollback` gives the alias back to the version
before, and done twice undoes itself; `unlock` removes what a killed promotion has left; `history`
lists the versions that had the alias, with dates, figures, author and why.

Exit status: 0 promoted (or champion already), 2 an error, 3 refused by the gate or overtaken.
"""

import sys

from train.config import installed

# What the extra `train` brings is looked for before it is imported: without it one refusal is told.
if __name__ == "__main__":
    installed.check_or_exit()

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from featurestore.printing import Console, is_quiet, say
from featurestore.spec.arguments import given
from featurestore.spec.bounds import COUNTS
from featurestore.spec.rules import KEEPING
from train.config.help import broken, help_or_refuse, keys, run_command
from train.config.load import small
from train.config.rules import check_model_name
from train.config.schema import Config, ConfigError, doc
from train.config.sections import Server
from train.promotion.requirements import Gate, gate_file

if TYPE_CHECKING:  # it imports torch
    from train.promotion.candidate import CandidateEvaluation

EXAMPLE = "model=tissue-probe version=7 alias=champion"
VERBS = ("rollback", "unlock", "history")
VIEW = ("data", *KEEPING, "threads", "memory_limit", "storage", "backend")
REFUSED = 3


@dataclass
class Request:
    """What is asked for."""

    model: str = field(default="tissue-probe", metadata=doc("name in the model registry"))
    version: int | Literal["latest"] | None = field(
        default=None, metadata=doc("which one is to be promoted, or latest", COUNTS)
    )
    alias: str = field(default="champion", metadata=doc("the alias that it gets"))
    gate: str | None = field(
        default=None,
        metadata=doc("what must hold: a file, or one of configs/ by its name (default: gate)"),
    )
    author: str | None = field(default=None, metadata=doc("who decides (default: login name)"))
    why: str | None = field(
        default=None, metadata=doc("reason, for the page and the history (default: the gate's)")
    )
    tracking: Server = field(default_factory=Server, metadata=doc("MLflow"))
    output: str | None = field(
        default=None, metadata=doc("folder for the page of the decision, besides MLflow")
    )


def usage() -> str:
    """Return the help: the keys, those of the test view, and those of the gate."""
    return "\n".join(
        [
            (__doc__ or "").strip(), "", *keys(Request),
            *broken(f"  {', '.join(VIEW)}", 2), "      change the test view, as in train/probe.py",
            "", "Keys of the gate:", "", *keys(Gate),
        ]
    )  # fmt: skip


def understood(argv: list[str], verb: str) -> tuple[Request, list[str]]:
    """Return what is asked for, and the changes to the test view.

    Raises
    ------
    ConfigError
        An argument is not understood, or the verb has no use for it.
    """
    changes = [a for a in argv if re.split(r"[.=]", a, maxsplit=1)[0] in VIEW and "=" in a]
    request = small(Request, [a for a in argv if a not in changes], EXAMPLE)
    given(Config, changes, EXAMPLE)
    if request.version is None and verb == "promote":
        raise ConfigError(
            "version is not set", found=" ".join(argv) or "no arguments",
            fix=f"write {EXAMPLE}, or version=latest",
        )  # fmt: skip
    if (request.version is not None or changes) and verb != "promote":
        raise ConfigError(
            f"{verb} takes neither version nor view",
            found=" ".join(argv),
            fix=f"write {verb} model={request.model}",
        )
    check_model_name(request.model, "model")
    if not re.fullmatch(r"(?!latest$|[vV]\d+$)[\w-]+", request.alias):
        raise ConfigError(
            f"{request.alias!r} cannot be an alias", found="MLflow takes letters, digits, _ and -",
            fix="write for example alias=champion",
        )  # fmt: skip
    return request, changes


def asked_of(argv: Sequence[str]) -> tuple[str, Request, list[str]]:
    """Return the verb, what is asked for, and the changes to the test view; see `understood`."""
    verb = argv[0] if argv and argv[0] in VERBS else "promote"
    return verb, *understood([*argv][verb in VERBS :], verb)


# Help and refused arguments must not wait for MLflow and Ibis to be imported.
if __name__ == "__main__":
    help_or_refuse(sys.argv[1:], usage, asked_of)

import hashlib
import shlex
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from featurestore.console.tables import print_field, print_table
from featurestore.errors import shown_warnings
from featurestore.io.atomic import write_bytes
from featurestore.io.mlflow_artifacts import use_tracking
from featurestore.io.names import resolved_once
from featurestore.io.progress import Rows
from train.config.load import filed
from train.promotion import alias, files, gate, lock
from train.promotion import history as history_of
from train.promotion.alias import OvertakenError
from train.promotion.checks import Check, failed_checks, run_checks
from train.promotion.decision import Decision, page, show, tags
from train.tracking import registry
from train.tracking.provenance import git_commit
from train.tracking.registry import Version


def main(argv: Sequence[str]) -> int:
    """Promote, roll back or unlock; return the exit status."""
    return run_command(argv, usage, work)


def work(argv: list[str]) -> int:
    """Do what the verb says."""
    verb, request, changes = asked_of(argv)
    use_tracking(request.tracking.uri)
    registry.check_store(request.model)  # before a lock is written
    command = shlex.join(["python", "train/promote.py", *argv])
    if verb == "unlock":
        return unlock(request.model)
    if verb == "history":
        return history(request)
    if verb == "rollback":
        return rollback(request, command)
    return promote(request, changes, command, Console())


def promote(request: Request, changes: list[str], command: str, console: Console) -> int:
    """Look at the candidate and the champion, decide, write it down, move the alias."""
    file = gate_file(request.gate or "gate")
    asked = filed(Gate, file)
    gate.check(asked)
    candidate = registry.version(request.model, request.version or 0)
    champion = registry.alias_version(request.model, request.alias)
    if champion and champion.number == candidate.number:
        console.print(f"{candidate} is {request.alias} of {request.model} already")
        return 0
    with shown_warnings(console), resolved_once():
        lines, evaluation = examined(asked, candidate, champion, changes, console)
    decision = replace(
        signed("refused" if failed_checks(lines) else "passed", request, command, candidate),
        champion=champion.number if champion else "none",
        gate=str(file),
        gate_digest=hashlib.sha256(file.read_bytes()).hexdigest(),
        lines=lines,
        evaluation=evaluation,
    )
    record(decision, candidate, request)  # before the alias moves: none does without evidence
    if decision.outcome == "passed":
        try:
            alias.move(candidate, request.alias, champion)
            decision = promoted(decision, candidate, request)
        except OvertakenError as late:
            line = Check("overtaken", False, late.found, "the champion that it was compared with")
            decision = replace(decision, outcome="refused", lines=[*lines, line])
            record(decision, candidate, request)
    show(decision, console)
    if decision.outcome == "refused":
        return refuse(decision)
    instead = champion or "no version"
    outcome = f"{candidate} is {request.alias} of {request.model}, in place of {instead}"
    print_field("promoted", outcome, console, indent=0)
    print_field("evidence", f"runs:/{candidate.run}/{decision.file}", console, indent=0)
    return 0


def promoted(decision: Decision, candidate: Version, request: Request) -> Decision:
    """Write down that the alias was moved: the page is titled so, and the history tells of it."""
    decision = replace(decision, outcome="promoted")
    write_page(decision, candidate, request)
    history_of.record(decision, candidate)
    return decision


def examined(
    asked: Gate,
    candidate: Version,
    champion: Version | None,
    changes: list[str],
    console: Console,
) -> "tuple[list[Check], CandidateEvaluation | None]":
    """Return the lines of the gate and the evidence; files that have changed are not loaded."""
    # They import torch: no refused argument should wait for it.
    from train.promotion.candidate import (
        evaluate_candidate,
        load_candidate,
        recorded_config,
        training_differences,
    )

    run, config = recorded_config(candidate, changes)
    with tempfile.TemporaryDirectory() as scratch:
        copies = files.fetch(candidate, champion, Path(scratch))
        lines = [files.check(copies)] if asked.digests else []
        if failed_checks(lines):
            return lines, None
        folders = [folder for _, folder in copies]
        new, old = load_candidate(folders[0], folders[1] if champion else None)
    gate.check_classes(asked, new.spec.classes)
    evaluation = evaluate_candidate(new, old, run, config, Rows(console))
    test_set = evaluation.evidence.read["test_tiles"]
    evidence = replace(evaluation.evidence, decisions=registry.uses(candidate.model, test_set))
    evaluation = replace(evaluation, evidence=evidence)
    if champion:
        evaluation = replace(evaluation, notes=training_differences(run, champion))
    for note in evaluation.notes if not is_quiet() else ():
        print_field("note", note, console, indent=0)
    return [*lines, *run_checks(asked, evaluation.evidence)], evaluation


def signed(outcome: str, request: Request, command: str, version: Version) -> Decision:
    """Return a decision with its author, its time and the code that made it."""
    return Decision(
        outcome=outcome,
        model=request.model,
        version=version.number,
        alias=request.alias,
        champion="none",
        author=request.author or lock.user(),
        command=command,
        commit=git_commit() or "not known",
        time=datetime.now(UTC),
        why=request.why or "",
    )


def record(decision: Decision, version: Version, request: Request) -> None:
    """Write a decision as an artifact of the version's run, into its tags, and where asked."""
    uri = write_page(decision, version, request)
    registry.tag(version, tags(decision, uri))
    if decision.evaluation:
        test_set = decision.evaluation.evidence.read["test_tiles"]
        registry.record_use(version, test_set, decision.time, decision.outcome)


def write_page(decision: Decision, version: Version, request: Request) -> str:
    """Write the page of a decision; return its URI."""
    content = page(decision)
    uri = registry.write(version, content, decision.file)
    if request.output:
        write_bytes(Path(request.output) / Path(decision.file).name, content.encode())
    return uri


def refuse(decision: Decision) -> int:
    """Say on standard error which lines failed; return the exit status of a refusal."""
    console, version = Console(stderr=True), f"version {decision.version}"
    outcome = f"{version} does not become {decision.alias} of {decision.model}"
    print_field("refused", outcome, console, indent=0)
    for line in failed_checks(decision.lines):
        short = f", {line.margin_text}" if line.margin_text else ""
        print_field(line.name, f"{line.measured} (asked: {line.required}{short})", console)
    return REFUSED


def rollback(request: Request, command: str) -> int:
    """Give the alias back to the version before."""

    def write(now: Version, before: Version) -> None:
        for version, outcome in ((now, "rolled back"), (before, "restored")):
            made = replace(signed(outcome, request, command, version), champion=now.number)
            record(made, version, request)
        history_of.record(made, before)
        say(f"{request.alias} of {request.model}: {now} -> {before}")

    alias.rollback(request.model, request.alias, write)
    return 0


def history(request: Request) -> int:
    """List the versions that had the alias."""
    kept = history_of.alias_moves(request.model, request.alias)
    if not kept:
        say(f"no version of {request.model} has been {request.alias}")
        return 0
    title = f"{request.alias} of {request.model}, the latest last"
    print_table(history_of.table(kept), Console(), title, limit=len(kept))
    return 0


def unlock(model: str) -> int:
    """Remove the lock of a promotion that was killed."""
    keeper = lock.unlock(model)
    say(f"removed: {keeper}" if keeper else f"no promotion of {model} is under way")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
