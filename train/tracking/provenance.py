"""Which commit of the code runs, and by which command."""

import ctypes
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from featurestore.redaction import redacted

COMMIT = "TISSUE_PROBE_COMMIT"
"""Set where the code lies without its history, as in a container."""
SCRIPT = "train/probe.py"
PR_SET_PDEATHSIG = 1  # of Linux: which signal a process gets when its parent ends
RECORDED = ("ACCELERATE_USE_CPU", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
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


def command(argv: Sequence[str], environ: Mapping[str, str], script: str = SCRIPT) -> str:
    """Return a command that starts this run again, as a shell takes it.

    Parameters
    ----------
    argv
        Arguments of the script.
    environ
        The environment, in which a launcher leaves what it was told.
    script
        The script as it was named.
    """
    launch = launcher(environ)
    # `accelerate launch` sets this itself, from its flag --cpu.
    skipped = "ACCELERATE_USE_CPU" if launch[0] == "accelerate" else None
    variables = [
        f"{name}={shlex.quote(environ[name])}"
        for name in RECORDED
        if name in environ and name != skipped
    ]
    return redacted(" ".join([*variables, shlex.join([*launch, script, *argv])]))


def launcher(environ: Mapping[str, str]) -> list[str]:
    """Return the command that started the script of this environment, without the script."""
    processes = int(environ.get("WORLD_SIZE", "1"))
    on_machine = int(environ.get("LOCAL_WORLD_SIZE", processes))
    machines = processes // on_machine
    if "ACCELERATE_MIXED_PRECISION" in environ:
        on_cpu = environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
        launch = ["accelerate", "launch", *(["--cpu"] if on_cpu else [])]
        launch += ["--multi_gpu"] if processes > 1 and not on_cpu else []
        launch += ["--num_processes", str(processes)] if processes > 1 else []
        launch += ["--num_machines", str(machines)] if machines > 1 else []
        precision = environ["ACCELERATE_MIXED_PRECISION"]
        return [*launch, *(["--mixed_precision", precision] if precision != "no" else [])]
    if "TORCHELASTIC_RUN_ID" in environ:
        nodes = ["--nnodes", str(machines)] if machines > 1 else []
        return ["torchrun", *nodes, "--nproc_per_node", str(on_machine)]
    if "SLURM_PROCID" in environ and processes > 1:
        return ["srun", "--ntasks", str(processes), "python"]
    return ["python"]


def follow_launcher(environ: Mapping[str, str]) -> None:
    """End with the launcher of this process: ``accelerate launch`` passes no signal on."""
    if sys.platform.startswith("linux") and launcher(environ)[0] in ("accelerate", "torchrun"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
