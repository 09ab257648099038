"""Which commit of the code runs, and by which command."""

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from featurestore.redaction import redacted

COMMIT = "TISSUE_PROBE_COMMIT"
"""Set where the code lies without its history, as in a container."""
SCRIPT = "train/probe.py"
PR_SET_PDEATHSIG = 1  # of Linux: which signal a process gets when its parent ends
NAMED = ("ACCELERATE_USE_CPU", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
"""Variables that change a run, where they are set."""


def git_commit() -> str | None:
    """Return the commit of this checkout, ``-dirty`` appended if it has changes."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return os.environ.get(COMMIT)


def command(argv: Sequence[str]) -> str:
    """Return the command that started this run, as a shell takes it, its launcher in front.

    Parameters
    ----------
    argv
        Arguments of the script.
    """
    own = ["python", SCRIPT, *argv]
    try:
        processes = [psutil.Process(), *psutil.Process().parents()]
        lines = [process.cmdline() for process in processes]
        launching = [place for place, line in enumerate(lines) if launches(line, argv)]
        if not launching:
            return redacted(shlex.join(own))
        outer = launching[-1]
        there = processes[outer].environ()
        named = [f"{key}={shlex.quote(there[key])}" for key in NAMED if key in there]
        return redacted(" ".join([*named, shlex.join(spoken(lines[outer]))]))
    except psutil.Error:  # another user's process
        return redacted(shlex.join(own))


def follow_launcher(argv: Sequence[str]) -> None:
    """End with the launcher of this process: ``accelerate launch`` passes no signal on."""
    if not sys.platform.startswith("linux"):
        return
    parent = psutil.Process().parent()
    with contextlib.suppress(psutil.Error):  # another user's, or gone
        if parent and launches(parent.cmdline(), argv):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def launches(line: Sequence[str], argv: Sequence[str]) -> bool:
    """Return whether a command line is Python's and ends with the script and its arguments."""
    place = len(line) - len(argv) - 1
    return (
        place > 0
        and list(line[place + 1 :]) == list(argv)
        and line[place].endswith("probe.py")
        and Path(line[0]).name.startswith("python")
    )


def spoken(line: Sequence[str]) -> list[str]:
    """Return a command line as people write it: ``accelerate``, not an interpreter and a file."""
    if Path(line[1]).parent.name == "bin":
        return [Path(line[1]).name, *line[2:]]
    return ["python", *line[1:]]
