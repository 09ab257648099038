"""What a run says on its page of its data, and of how to do it again."""

import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featurestore.snapshots.leakage import Finding
from featurestore.snapshots.snapshot import Snapshot
from train.config.schema import Config
from train.reports.html import Headline, Page, Picture, Table, Text, columns
from train.runtime.run import Run
from train.tracking.provenance import git_commit
from train.tracking.runs import versions

PICTURES = {
    "coverages": "Coverage by class",
    "slides": "Slides",
    "thresholds": "Tiles that a threshold keeps",
}
"""Of the cohort, those that no table says as well."""


def inputs(
    page: Page, snapshots: Sequence[Snapshot], sources: Mapping[str, tuple[str, str]]
) -> None:
    """Tell where the data come from, and their digests."""
    places = dict(sources)
    numbered = len(snapshots) > 1
    for number, snapshot in enumerate(snapshots, 1):
        name = f"snapshot {number}" if numbered else "snapshot"
        places[name] = (str(snapshot.folder), snapshot.digest)
        places[f"{name}, its rows"] = ("", snapshot.content)
    page.add("data", Table("Inputs", {
        "input": list(places),
        "place": [place for place, _ in places.values()],
        "SHA-256": [digest for _, digest in places.values()],
    }, "A snapshot's digest is that of artifacts, rules and the code of the views."))  # fmt: skip


def funnel(page: Page, rows: list[dict[str, Any]], variants: int = 1) -> None:
    """Tell how many tiles there were, and why some were dropped.

    Parameters
    ----------
    variants
        Of the rules; the rows are those of the first.
    """
    number = [row["tiles"] for row in rows]
    whole = max(number[0], 1)
    note = "" if variants == 1 else f"Under the first of {variants} variants of the rules."
    page.add("data", Table("Fate of the tiles", {
        "first reason": [row["reason"] for row in rows], "tiles": number,
        "share": [f"{tiles / whole:.1%}" for tiles in number],
    }, note))  # fmt: skip
    page.headlines.append(
        Headline("Tiles kept", f"{number[-1]:,}", f"of {number[0]:,}, {number[-1] / whole:.1%}")
    )


def folds(
    page: Page,
    config: Config,
    snapshot: Snapshot,
    shared: list[dict[str, Any]],
    pictures: Sequence[Path],
    kept: str | None,
) -> None:
    """Tell how the folds came about, what they share, and what the guard found.

    Parameters
    ----------
    shared
        Of each fold that is validated on, how many slides and groups stand on both sides.
    pictures
        Of the cohort.
    kept
        URI of the assigned folds; None where the tiles bring them.
    """
    brought = f"Assigned: {kept}." if kept else "As the tiles bring them, or not tracked."
    page.add("data", Table("On both sides of the split", columns(shared), brought))
    leakage(page, snapshot.findings, config)
    labels = snapshot.manifest["labels"]
    numbers: list[Any] = list(dict.fromkeys(row["fold"] for row in labels))
    tiles = {(row["label"], row["fold"]): row["tiles"] for row in labels}
    names = list(dict.fromkeys(row["label"] for row in labels))
    page.add("data", Table("Tiles by class and fold", {
        "class": names,
        **{f"fold {n}": [tiles.get((name, n), 0) for name in names] for n in numbers},
    }))  # fmt: skip
    page.add("data", *(
        Picture(PICTURES[file.stem], file.read_bytes())
        for file in pictures if file.stem in PICTURES
    ))  # fmt: skip


def leakage(page: Page, findings: Sequence[Finding], config: Config) -> None:
    """Tell what the guard found, as a verdict and as a table."""
    if config.mode == "test":
        findings = [finding for finding in findings if "test" in finding.check]
    leaks = [finding for finding in findings if finding.count]
    if leaks:
        said = "; ".join(f"{leak.count:,} {leak.check}" for leak in leaks)
        page.add("data", Text(
            f"Leak: {said}. Figures on slides that were trained on look better than on new ones.",
            doubtful=True,
        ))  # fmt: skip
        verdict = Headline("Leakage", "found", said, doubtful=True)
    elif findings:
        verdict = Headline("Leakage", "none found", f"{len(findings)} checks")
    else:
        verdict = Headline("Leakage", "not checked", "no folds to compare with", doubtful=True)
    page.headlines.append(verdict)
    if findings:
        page.add("data", Table("Leakage", {
            "must not be": [one.check for one in findings],
            "promised": [one.is_error for one in findings],
            "found": [one.count for one in findings],
            "the first": [one.first for one in findings],
        }))  # fmt: skip


def again(page: Page, session: Run, uri: str | None) -> None:
    """Tell how to do the run again, and how to see whether its figures are the same."""
    commit, run = git_commit(), session.tracker.run
    page.add("again", Text(session.command, "The command", code=True))
    page.add("again", Text(f"In the folder {Path.cwd()}."))
    if run:
        registered = uri and "/" in uri.removeprefix("models:/")
        name = uri if uri and registered else run
        store = session.config.tracking.uri
        place = [f"tracking.uri={store}"] if store else []
        page.add("again", Text(
            shlex.join(["python", "train/replay.py", name, *place]), "Are the figures the same?",
            code=True,
        ), Text("Builds the views again, evaluates, and compares every figure."))  # fmt: skip
    said = {
        "commit": commit or "not known: no git checkout",
        "run": run or "not tracked",
        "processes": str(session.accelerator.num_processes),
        "device": session.accelerator.device.type,
        "seed": str(session.config.seed),
    }
    if commit and commit.endswith("-dirty"):
        page.add("again", Text(
            "The checkout had changes that no commit holds: the commit alone does not bring this "
            "code back.", doubtful=True,
        ))  # fmt: skip
    page.add("again", Table("Code", {"what": list(said), "value": list(said.values())}))
    there = {"python": platform.python_version(), **versions()}
    page.add("again", Table("Versions", {"package": list(there), "version": list(there.values())}))
