"""A job as objects of Kubernetes: configs/cluster/job.yaml with its values in place."""

import os
import re
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml

from train.config.schema import ConfigError
from train.runtime.cluster_job import PROBE, ClusterJob
from train.tracking.provenance import COMMIT

TEMPLATE = PROBE.parents[1] / "configs" / "cluster" / "job.yaml"


def manifests(job: ClusterJob, options: Namespace) -> list[dict[str, Any]]:
    """Return the objects of a job: itself last; before it the service by which its nodes meet."""
    service, workload = yaml.safe_load_all(TEMPLATE.read_text("utf-8"))
    values = manifest_values(job, options)
    templates = [service, workload] if job.nodes > 1 else [workload]
    return [fill(template, values) for template in templates]


def fill(template: Any, values: Mapping[str, Any]) -> Any:
    """Return a parsed template with each ``${name}`` replaced by its value, null ones left out."""
    if isinstance(template, dict):
        filled = {key: fill(value, values) for key, value in template.items()}
        return {key: value for key, value in filled.items() if value is not None}
    if isinstance(template, list):
        return [fill(value, values) for value in template]
    placeholder = re.fullmatch(r"\$\{(\w+)\}", template) if isinstance(template, str) else None
    return values[placeholder[1]] if placeholder else template


def manifest_values(job: ClusterJob, options: Namespace) -> dict[str, Any]:
    """Return what takes the places of the template.

    Raises
    ------
    ConfigError
        A claim is not understood.
    """
    name = f"{label(job.name)[:48].strip('-')}-{os.urandom(3).hex()}"
    claims = [claim.split(":", 1) for claim in options.claim]
    if not all(len(claim) == 2 and claim[1].startswith("/") for claim in claims):
        raise ConfigError(
            "A claim is a name and an absolute path", found=" ".join(options.claim),
            fix="write for example --claim data:/data",
        )  # fmt: skip
    variables = {COMMIT: job.commit, "MLFLOW_TRACKING_URI": os.environ.get("MLFLOW_TRACKING_URI")}
    literal = replace(  # Kubernetes would put variables in place of $(...)
        job,
        name=job.name.replace("$", "$$"),
        arguments=tuple(argument.replace("$", "$$") for argument in job.arguments),
    )
    script = f"{options.checkout}/train/probe.py"
    return {
        "name": name, "run_name": job.name, "config": job.settings,
        "commit_label": label(job.commit), "image": options.image, "nodes": job.nodes,
        "command": literal.command(script, "$(JOB_COMPLETION_INDEX)", f"{name}-0.{name}"),
        "seconds": int(options.hours * 3600),
        "completion_mode": "Indexed" if job.nodes > 1 else "NonIndexed",
        "subdomain": name if job.nodes > 1 else None,
        "cpus": str(options.cpus), "memory": f"{options.memory}G",
        "gpus": str(job.gpus) if job.gpus else None,
        "environment": [{"name": n, "value": v} for n, v in variables.items() if v is not None],
        "working_folder": claims[0][1] if claims else None,
        "mounts": [{"name": label(claim), "mountPath": path} for claim, path in claims],
        "volumes": [{"name": label(claim), "persistentVolumeClaim": {"claimName": claim}}
                    for claim, _ in claims],
    }  # fmt: skip


def label(name: str) -> str:
    """Return a name as Kubernetes takes it: at most 63 of a-z, 0-9 and inner hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:63].strip("-")
