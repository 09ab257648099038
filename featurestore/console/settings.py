"""What ``featurestore`` is asked of: files and ``key=value`` arguments, made one store."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from featurestore import examples
from featurestore.errors import ArtifactError, ConfigError
from featurestore.io import mlflow_artifacts, uris
from featurestore.printing import is_quiet, say
from featurestore.spec import bounds
from featurestore.spec.bounds import THREADS
from featurestore.spec.keys import MISSING, unset
from featurestore.spec.places import YAML, file_question, unread_default
from featurestore.spec.rules import Artifacts, field_names
from featurestore.spec.store_spec import KEYS, StoreSpec
from featurestore.store import FeatureStore

MANDATORY = ("tiles", "embeddings", "class_indices", "thresholds")


def open_store(options: argparse.Namespace, **rules: Any) -> FeatureStore:
    """Open the store that files and arguments describe, some of its rules replaced."""
    bounds.check([("--threads", options.threads)], THREADS)
    files = [uri for uri in (options.config, *options.files.values()) if uri is not None]
    if options.tracking_uri is not None or any(map(uris.in_mlflow, files)):
        use_tracking(options)
    spec = replace(configured(options), **rules)
    artifacts = [[uri] if isinstance(uri, str) else uri for uri in spec.uris().values()]
    if any(uris.in_mlflow(uri) for several in artifacts for uri in several):
        use_tracking(options)
    runs = [options.runs] if isinstance(options.runs, str) else options.runs
    if any(not Path(run).exists() for run in runs):
        use_tracking(options)
    store = FeatureStore(spec, options.threads, options.memory_limit)
    return store.add_runs(*runs)


def use_tracking(options: argparse.Namespace) -> None:
    """Point MLflow at what is asked for; who asks nothing of it need not wait for its import."""
    mlflow_artifacts.use_tracking(options.tracking_uri)


def configured(options: argparse.Namespace) -> StoreSpec:
    """Return what is asked of: by default the digits, of whoever names no artifacts.

    Raises
    ------
    FeatureStoreError
        A file cannot be read or understood, or what must be set is not.
    """
    files, values = dict(options.files), options.values
    data = files.pop("data", None) if options.config is None else options.config
    named = any(values.get(name) is not None for name in field_names(Artifacts))
    overlays = [values_of(group, uri) for group, uri in files.items()]  # before digits are made
    if data == "digits" or (data is None and not named):
        note = unread_default() if data is None else None
        if note and not is_quiet():
            say(note, sys.stderr)
        spec = examples.digits_spec(log=False)
    elif data in (None, "files"):
        spec = StoreSpec()
    else:
        spec = StoreSpec().overlaid(values_of("data", data, options.config is not None))
    for overlay in (*overlays, values):
        spec = spec.overlaid(overlay)
    if data == "files":
        _check_mandatory(spec)
    return spec


def _check_mandatory(spec: StoreSpec) -> None:
    missing = [KEYS[name] for name in MANDATORY if getattr(spec, name) is None]
    if missing:
        raise unset(missing, " ".join(f"{key}={MISSING}" for key in missing))


def values_of(group: str, uri: str, any_name: bool = False) -> dict[str, Any]:
    """Return what a file sets, which ``--config`` may name without the suffix of YAML."""
    if not any_name and not uri.endswith(YAML):
        others = ": digits, files, or a file" if group == "data" else ""
        raise ConfigError(
            f"`featurestore` has no {group}={uri}",
            found=f"names of configs/ are those of the scripts{others}" + file_question(uri, group),
            fix=f"name a file, for example {group}=configs/{group}/{uri}.yaml"
            + ("; `featurestore init FOLDER` writes data.yaml" if group == "data" else ""),
        )
    try:
        path = Path(uris.local_path(uri))
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # a name may hold what no file's can
        raise ArtifactError(
            f"{uri or repr(uri)} cannot be read",
            found=getattr(error, "strerror", None) or str(error),
            fix="name a file that is there; `featurestore init FOLDER` writes data.yaml",
        ) from error
    return StoreSpec.values_in(content, uri, path)
