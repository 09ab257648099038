"""How to reproduce a run, on its page."""

import platform
import shlex
from datetime import UTC, datetime
from pathlib import Path

from train.config.encoders import encoders
from train.config.run_name import run_name
from train.reports.html import Page, Table, Text
from train.runtime.run import Run
from train.tracking.provenance import git_commit
from train.tracking.runs import versions


def add_heading(page: Page, run: Run) -> None:
    """Add which run it is."""
    config, id_ = run.config, run.tracker.run
    page.title = run_name(config)
    when = datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC")
    fold = "" if config.fold is None else f"fold {config.fold} · "
    tracked = f"run {id_}" if id_ else "not tracked"
    page.subtitle = f"{config.data.name} · {fold}{when} · {tracked}"


def add_instructions(page: Page, run: Run, uri: str | None) -> None:
    """Add how to do the run again, and how to see whether its figures are the same.

    Parameters
    ----------
    uri
        Of the model that the figures are of.
    """
    commit, id_ = git_commit(), run.tracker.run
    page.add("again", Text(run.command, "The command", code=True))
    page.add("again", Text(f"In the folder {Path.cwd()}."))
    registered = uri and "/" in uri.removeprefix("models:/")
    if id_ and (registered or not encoders(run.config)):  # whose figures are in the runs below
        name = uri if uri and registered else id_
        store = run.config.tracking.uri
        place = [f"tracking.uri={store}"] if store else []
        page.add("again", Text(
            shlex.join(["python", "train/replay.py", name, *place]), "Are the figures the same?",
            code=True,
        ), Text("Builds the views again, evaluates, and compares every figure."))  # fmt: skip
    facts = {
        "commit": commit or "not known: no git checkout",
        "run": id_ or "not tracked",
        "processes": str(run.processes.world),
        "device": run.processes.device.type,
        "seed": str(run.config.seed),
    }
    if commit and commit.endswith("-dirty"):
        page.add("again", Text(
            "The checkout had changes that no commit holds: the commit alone does not bring this "
            "code back.", doubtful=True,
        ))  # fmt: skip
    page.add("again", Table(
        "Code", {"what": list(facts), "value": list(facts.values())}, folded=True
    ))  # fmt: skip
    packages = {"python": platform.python_version(), **versions()}
    page.add("again", Table("Versions", {
        "package": list(packages), "version": list(packages.values())
    }, folded=True))  # fmt: skip
