"""Submit a run of train/probe.py to Slurm or Kubernetes.

    python train/submit.py slurm --gpus 2 --partition gpu --hours 4 fold=all final=true
    python train/submit.py slurm --nodes 2 --gpus 8 --dry-run fold=all
    python train/submit.py kubernetes --image registry/tissue-probe:1 --claim data:/data fold=4

The arguments after the options are those of train/probe.py, checked before anything is submitted.
A job that was preempted or killed goes on from its last epoch. `--dry-run` prints what would be
submitted. Needs `pip install -e '.[cluster]'`.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from featurestore.errors import FeatureStoreError
from featurestore.io.atomic import write_bytes
from featurestore.printing import print_error
from featurestore.spec import bounds
from featurestore.spec.bounds import COUNTS
from train.config import load, text
from train.config.schema import ConfigError
from train.tracking.provenance import COMMIT, git_commit

PROBE = Path(__file__).resolve().parent / "probe.py"
PORT = 29500  # at which the processes of several nodes meet


@dataclass(frozen=True)
class Job:
    """A run on a cluster; called on each node, it is that node's part of it.

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
        return [*launch, script, *self.given()]

    def given(self) -> list[str]:
        """Return the arguments of train/probe.py, with those that let it go on."""
        return [*self.arguments, f"tracking.run_name={self.name}", "resume=auto"]

    def __call__(self) -> None:
        """Run this node's part, under Slurm."""
        import submitit

        place = submitit.JobEnvironment()
        command = self.command(str(PROBE), str(place.node), place.hostnames[0])
        own = str(Path(sys.executable).parent)
        path = os.pathsep.join([own, os.environ.get("PATH", "")])
        subprocess.run(command, check=True, env={**os.environ, "PATH": path, COMMIT: self.commit})

    def checkpoint(self) -> Any:
        """Say what is to be submitted when Slurm takes the nodes away: the same, which goes on."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    first, _, rest = (__doc__ or "").partition("\n")
    top = argparse.ArgumentParser(
        prog="submit.py", description=first, epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    clusters = top.add_subparsers(dest="cluster", required=True)
    for name in ("slurm", "kubernetes"):
        one = clusters.add_parser(name, help=f"submit to {name.capitalize()}")
        one.add_argument("--dry-run", action="store_true", help="print it, submit nothing")
        one.add_argument("--nodes", type=int, default=1)
        one.add_argument("--gpus", type=int, default=0, help="GPUs a node (default: the CPU)")
        one.add_argument("--cpus", type=int, default=8, help="cores a node")
        one.add_argument("--memory", type=int, default=16, help="GB a node")
        one.add_argument("--hours", type=float, default=4, help="time limit")
        one.add_argument("--name", help="of job and run (default: made of the arguments)")
        one.add_argument(
            "--folder", type=Path, default=Path(".featurestore/jobs"),
            help="where the configuration and logs are kept",
        )  # fmt: skip
        if name == "slurm":
            one.add_argument("--partition")
            one.add_argument("--account")
        else:
            one.add_argument("--image", required=True, help="with this checkout in it")
            one.add_argument("--checkout", default="/app", help="where, in the image")
            one.add_argument("--namespace", default="default")
            one.add_argument(
                "--claim", action="append", default=[], metavar="NAME:/PATH",
                help="a persistent volume claim; the first is the working folder",
            )  # fmt: skip
        one.add_argument("arguments", nargs="*", metavar="key=value", help="of train/probe.py")
    return top


def main(argv: Sequence[str]) -> int:
    """Submit a run; return the exit status, 2 after a refusal."""
    options = parser().parse_args(argv)
    try:
        job = planned(options)
        said = slurm(job, options) if options.cluster == "slurm" else kubernetes(job, options)
    except FeatureStoreError as error:
        print_error(error)
        return 2
    print(said)
    return 0


def planned(options: argparse.Namespace) -> Job:
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
    settled = load.load(options.arguments)
    name = options.name or text.run_name(settled)
    commit = git_commit() or "unknown"
    if commit.endswith("-dirty"):
        print("warning: the checkout has changes that its commit does not hold", file=sys.stderr)
    arguments = tuple(
        a for a in options.arguments if not a.startswith(("tracking.run_name=", "resume="))
    )
    job = Job(name, arguments, text.text(settled), commit, options.nodes, options.gpus)
    load.load(job.given())
    return job


def keep(job: Job, folder: Path) -> None:
    """Record what is submitted: configuration, commit and command."""
    content = {"commit": job.commit, "run_name": job.name,
               "command": shlex.join(job.command("train/probe.py"))}  # fmt: skip
    write_bytes(folder / "config.yaml", job.settings.encode())
    write_bytes(folder / "job.yaml", yaml.safe_dump(content, sort_keys=False).encode())


# -- Slurm ----------------------------------------------------------------------------------------


def slurm(job: Job, options: argparse.Namespace) -> str:
    """Submit to Slurm by submitit; return what to tell, or what would be submitted."""
    import submitit
    from submitit.slurm.slurm import _make_sbatch_string

    folder = options.folder / job.name
    wanted = {
        "job_name": job.name, "comment": f"commit {job.commit}", "nodes": job.nodes,
        "ntasks_per_node": 1, "cpus_per_task": options.cpus, "mem": f"{options.memory}GB",
        "time": int(options.hours * 60), "partition": options.partition,
        "account": options.account, "gpus_per_node": job.gpus or None,
    }  # fmt: skip
    parameters = {key: value for key, value in wanted.items() if value is not None}
    if options.dry_run:
        command = shlex.join([sys.executable, "-u", "-m", "submitit.core._submit", str(folder)])
        script = _make_sbatch_string(command=command, folder=folder, **parameters)
        node = " ".join(job.command(str(PROBE), "NODE", "FIRST_NODE"))
        return f"{script}\n# which on each node runs\n# {node}"
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


# -- Kubernetes -----------------------------------------------------------------------------------


def kubernetes(job: Job, options: argparse.Namespace) -> str:
    """Submit to Kubernetes by its client; return what to tell, or what would be submitted."""
    from kubernetes import client
    from kubernetes import config as access
    from urllib3.exceptions import HTTPError

    objects = manifests(job, options)
    if options.dry_run:
        return yaml.safe_dump_all(objects, sort_keys=False).rstrip()
    try:
        access.load_config()
        batch, core = client.BatchV1Api(), client.CoreV1Api()
        *services, body = objects
        for service in services:
            core.create_namespaced_service(options.namespace, service)
        batch.create_namespaced_job(options.namespace, body)
    except (access.ConfigException, client.ApiException, HTTPError) as error:
        raise FeatureStoreError(
            "Kubernetes did not take the job",
            found=str(getattr(error, "body", None) or error).strip().splitlines()[0],
            fix="look at kubectl config current-context, or at the job with --dry-run",
        ) from error
    keep(job, options.folder / job.name)
    name = body["metadata"]["name"]
    return f"submitted: job {name}, run {job.name}; kubectl logs -f job/{name}"


def manifests(job: Job, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the objects of a job: itself last; before it the service by which its nodes meet."""
    from kubernetes import client

    name = f"{label(job.name)[:48].strip('-')}-{os.urandom(3).hex()}"
    claims = [claim.split(":", 1) for claim in options.claim]
    if not all(len(claim) == 2 and claim[1].startswith("/") for claim in claims):
        raise ConfigError(
            "A claim is a name and an absolute path", found=" ".join(options.claim),
            fix="write for example --claim data:/data",
        )  # fmt: skip
    needs = {"cpu": str(options.cpus), "memory": f"{options.memory}G"}
    limits = needs | ({"nvidia.com/gpu": str(job.gpus)} if job.gpus else {})
    plain = {COMMIT: job.commit}
    plain |= {key: os.environ[key] for key in ("MLFLOW_TRACKING_URI",) if key in os.environ}
    environment = [client.V1EnvVar(name=key, value=value) for key, value in plain.items()]
    literal = replace(  # Kubernetes would put variables in place of $(...)
        job,
        name=job.name.replace("$", "$$"),
        arguments=tuple(a.replace("$", "$$") for a in job.arguments),
    )
    command = literal.command(
        f"{options.checkout}/train/probe.py", "$(JOB_COMPLETION_INDEX)", f"{name}-0.{name}"
    )
    container = client.V1Container(
        name="probe", image=options.image, command=command, env=environment,
        working_dir=claims[0][1] if claims else None,
        resources=client.V1ResourceRequirements(requests=needs, limits=limits),
        volume_mounts=[
            client.V1VolumeMount(name=label(own), mount_path=path) for own, path in claims
        ],
    )  # fmt: skip
    volumes = [
        client.V1Volume(
            name=label(own),
            persistent_volume_claim=client.V1PersistentVolumeClaimVolumeSource(claim_name=own),
        )
        for own, _ in claims
    ]
    labels = {"app": "tissue-probe", "commit": label(job.commit), "job": name}
    several = job.nodes > 1
    pod = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels=labels),
        spec=client.V1PodSpec(
            containers=[container], volumes=volumes, restart_policy="OnFailure",
            subdomain=name if several else None,
        ),
    )  # fmt: skip
    body = client.V1Job(
        api_version="batch/v1", kind="Job",
        metadata=client.V1ObjectMeta(
            name=name, labels=labels,
            annotations={"tissue-probe/run": job.name, "tissue-probe/config": job.settings},
        ),
        spec=client.V1JobSpec(
            template=pod, backoff_limit=3, active_deadline_seconds=int(options.hours * 3600),
            completions=job.nodes, parallelism=job.nodes,
            completion_mode="Indexed" if several else "NonIndexed",
        ),
    )  # fmt: skip
    service = client.V1Service(
        api_version="v1", kind="Service",
        metadata=client.V1ObjectMeta(name=name, labels=labels),
        spec=client.V1ServiceSpec(cluster_ip="None", selector={"job": name}),
    )  # fmt: skip
    turn = client.ApiClient().sanitize_for_serialization
    return [turn(one) for one in ([service, body] if several else [body])]


def label(name: str) -> str:
    """Return a name as Kubernetes takes it: at most 63 of a-z, 0-9 and inner hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:63].strip("-")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
