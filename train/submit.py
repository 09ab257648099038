"""Submit a run of train/probe.py to Slurm or Kubernetes.

    python train/submit.py slurm --gpus 2 --partition gpu --hours 4 fold=all final=true
    python train/submit.py slurm --nodes 2 --gpus 8 --dry-run fold=all
    docker build -t registry/tissue-probe:1 . && docker push registry/tissue-probe:1
    python train/submit.py kubernetes --image registry/tissue-probe:1 --claim data:/data fold=4

The arguments after the options are those of train/probe.py, checked before anything is submitted.
A job that was preempted or killed goes on from its last epoch. `--dry-run` prints what would be
submitted. Needs `pip install -e '.[cluster]'`.
"""

import sys

from train.config import installed

# What the extra `train` brings is looked for before it is imported: without it one refusal is told.
if __name__ == "__main__":
    installed.check_or_exit()

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from featurestore.errors import FeatureStoreError, library_needed
from featurestore.io.atomic import write_bytes
from featurestore.printing import print_error
from featurestore.spec import bounds
from featurestore.spec.bounds import COUNTS
from train.config import load, text
from train.config.run_name import run_name
from train.config.schema import ConfigError
from train.runtime.cluster_job import PROBE, ClusterJob
from train.runtime.manifests import manifests
from train.tracking.provenance import git_commit

OPTIONS: dict[str, dict[str, Any]] = {
    "--dry-run": {"action": "store_true", "help": "print it, submit nothing"},
    "--nodes": {"type": int, "default": 1},
    "--gpus": {"type": int, "default": 0, "help": "GPUs a node (default: the CPU)"},
    "--cpus": {"type": int, "default": 8, "help": "cores a node"},
    "--memory": {"type": int, "default": 16, "help": "GB a node"},
    "--hours": {"type": float, "default": 4, "help": "time limit"},
    "--name": {"help": "of job and run (default: made of the arguments)"},
    "--folder": {"type": Path, "default": Path(".featurestore/jobs"),
                 "help": "where the configuration and logs are kept"},
}  # fmt: skip
OPTIONS_OF: dict[str, dict[str, dict[str, Any]]] = {
    "slurm": {"--partition": {}, "--account": {}},
    "kubernetes": {
        "--image": {"required": True, "help": "with this checkout in it: docker build -t IMAGE ."},
        "--checkout": {"default": "/app", "help": "where, in the image"},
        "--namespace": {"default": "default"},
        "--claim": {"action": "append", "default": [], "metavar": "NAME:/PATH",
                    "help": "a persistent volume claim; the first is the working folder"},
    },
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    first, _, rest = (__doc__ or "").partition("\n")
    top = argparse.ArgumentParser(
        prog="submit.py", description=first, epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    clusters = top.add_subparsers(dest="cluster", required=True)
    for name in ("slurm", "kubernetes"):
        cluster = clusters.add_parser(name, help=f"submit to {name.capitalize()}")
        for option, settings in {**OPTIONS, **OPTIONS_OF[name]}.items():
            cluster.add_argument(option, **settings)
        cluster.add_argument("arguments", nargs="*", metavar="key=value", help="of train/probe.py")
    return top


def main(argv: Sequence[str]) -> int:
    """Submit a run; return the exit status, 2 after a refusal."""
    options = parser().parse_args(argv)
    try:
        job = planned(options)
        message = slurm(job, options) if options.cluster == "slurm" else kubernetes(job, options)
    except FeatureStoreError as error:
        print_error(error)
        return 2
    print(message)
    return 0


def planned(options: argparse.Namespace) -> ClusterJob:
    """Return the job, its configuration checked.

    Raises
    ------
    ConfigError
        The arguments are not those of train/probe.py.
    """
    if options.nodes < 1 or options.gpus < 0 or (options.nodes > 1 and not options.gpus):
        raise ConfigError(
            "This many nodes and GPUs make no job",
            found=f"--nodes {options.nodes} --gpus {options.gpus}",
            fix="one node with or without GPUs, or several nodes with GPUs",
        )
    for key, number, interval in (
        ("--cpus", options.cpus, COUNTS), ("--memory", options.memory, COUNTS),
        ("--hours", options.hours, "(0, 1e5]"),
    ):  # fmt: skip
        bounds.check([(key, number)], interval)
    config = load.load(options.arguments)
    name = options.name or run_name(config)
    commit = git_commit() or "unknown"
    if commit.endswith("-dirty"):
        print("warning: the checkout has changes that its commit does not hold", file=sys.stderr)
    arguments = tuple(
        a for a in options.arguments if not a.startswith(("tracking.run_name=", "resume="))
    )
    job = ClusterJob(name, arguments, text.text(config), commit, options.nodes, options.gpus)
    load.load(job.probe_arguments())
    return job


def keep(job: ClusterJob, folder: Path) -> None:
    """Record what is submitted: configuration, commit and command."""
    content = {"commit": job.commit, "run_name": job.name,
               "command": shlex.join(job.command("train/probe.py"))}  # fmt: skip
    write_bytes(folder / "config.yaml", job.settings.encode())
    write_bytes(folder / "job.yaml", yaml.safe_dump(content, sort_keys=False).encode())


# -- Slurm ----------------------------------------------------------------------------------------


def slurm(job: ClusterJob, options: argparse.Namespace) -> str:
    """Submit to Slurm by submitit; return what to tell, or what would be submitted."""
    with library_needed("Slurm is submitted to by submitit", "cluster"):
        import submitit

    folder = options.folder / job.name
    wanted = {
        "job_name": job.name, "comment": f"commit {job.commit}", "nodes": job.nodes,
        "ntasks_per_node": 1, "cpus_per_task": options.cpus, "mem": f"{options.memory}GB",
        "time": int(options.hours * 60), "partition": options.partition,
        "account": options.account, "gpus_per_node": job.gpus or None,
    }  # fmt: skip
    parameters = {key: value for key, value in wanted.items() if value is not None}
    if options.dry_run:
        node = " ".join(job.command(str(PROBE), "NODE", "FIRST_NODE"))
        return f"{sbatch_script(folder, parameters)}\n# which on each node runs\n# {node}"
    try:
        executor = submitit.SlurmExecutor(folder)
        executor.update_parameters(**parameters)
        keep(job, folder)
        number = executor.submit(job).job_id
    except (RuntimeError, submitit.core.utils.FailedJobError) as error:
        raise FeatureStoreError(
            "Slurm did not take the job",
            found=str(error).strip().splitlines()[-1],
            fix="run it where sbatch works, or look at it with --dry-run",
        ) from error
    return f"submitted: job {number}, run {job.name}; logs in {folder}"


def sbatch_script(folder: Path, parameters: Mapping[str, Any]) -> str:
    """Return the script that submitit would submit, or its settings where it does not tell."""
    command = shlex.join([sys.executable, "-u", "-m", "submitit.core._submit", str(folder)])
    try:
        # Private: submitit shows a script only to whom it submits.
        from submitit.slurm.slurm import _make_sbatch_string

        return str(_make_sbatch_string(command=command, folder=folder, **parameters))
    except (ImportError, TypeError):
        settings = [f"#   {key}: {value}" for key, value in parameters.items()]
        return "\n".join(["#!/bin/bash", "# submitit's settings", *settings, command])


# -- Kubernetes -----------------------------------------------------------------------------------


def kubernetes(job: ClusterJob, options: argparse.Namespace) -> str:
    """Submit to Kubernetes by its client; return what to tell, or what would be submitted."""
    objects = manifests(job, options)
    if options.dry_run:
        return yaml.safe_dump_all(objects, sort_keys=False).rstrip()
    with library_needed("Kubernetes is submitted to by its client", "cluster"):
        from kubernetes import client, config
        from urllib3.exceptions import HTTPError

    try:
        config.load_config()
        batch, core = client.BatchV1Api(), client.CoreV1Api()
        *services, workload = objects
        for service in services:
            core.create_namespaced_service(options.namespace, service)
        batch.create_namespaced_job(options.namespace, workload)
    except (config.ConfigException, client.ApiException, HTTPError) as error:
        raise FeatureStoreError(
            "Kubernetes did not take the job",
            found=str(getattr(error, "body", None) or error).strip().splitlines()[0],
            fix="look at kubectl config current-context, or at the job with --dry-run",
        ) from error
    keep(job, options.folder / job.name)
    name = workload["metadata"]["name"]
    return f"submitted: job {name}, run {job.name}; kubectl logs -f job/{name}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
