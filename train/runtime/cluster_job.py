"""A run of train/probe.py as a job of a cluster: the command of each of its nodes."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.tracking.provenance import COMMIT

PROBE = Path(__file__).resolve().parents[1] / "probe.py"
PORT = 29500  # at which the processes of several nodes meet


@dataclass(frozen=True)
class ClusterJob:
    """A run on a cluster. Calling it on a node runs that node's part.

    Parameters
    ----------
    name
        Of the run and of the job.
    arguments
        Of train/probe.py.
    settings
        The resolved configuration, as YAML.
    commit
        Of the code.
    nodes, gpus
        How many, and how many on each.
    """

    name: str
    arguments: tuple[str, ...]
    settings: str
    commit: str
    nodes: int
    gpus: int

    def command(self, script: str, rank: str = "0", host: str = "127.0.0.1") -> list[str]:
        """Return the command of one node."""
        processes = self.nodes * max(1, self.gpus)
        launch = ["accelerate", "launch", "--num_machines", str(self.nodes), "--num_processes",
                  str(processes), "--mixed_precision", "no", "--dynamo_backend", "no"]  # fmt: skip
        launch += [] if self.gpus else ["--cpu"]
        launch += ["--multi_gpu"] if processes > 1 else []
        if self.nodes > 1:
            launch += ["--machine_rank", rank, "--main_process_ip", host]
            launch += ["--main_process_port", str(PORT)]
        return [*launch, script, *self.probe_arguments()]

    def probe_arguments(self) -> list[str]:
        """Return the arguments of train/probe.py, with those that let it go on."""
        return [*self.arguments, f"tracking.run_name={self.name}", "resume=auto"]

    def __call__(self) -> None:
        """Run this node's part, under Slurm."""
        import submitit

        node = submitit.JobEnvironment()
        command = self.command(str(PROBE), str(node.node), node.hostnames[0])
        programs = str(Path(sys.executable).parent)
        path = os.pathsep.join([programs, os.environ.get("PATH", "")])
        subprocess.run(command, check=True, env={**os.environ, "PATH": path, COMMIT: self.commit})

    def checkpoint(self) -> Any:
        """Say what is to be submitted when Slurm takes the nodes away: the same, which goes on."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)
