"""What ``featurestore`` is asked of: files and ``key=value`` arguments, made one store."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from featurestore import examples
from featurestore.errors import ArtifactError, ConfigError
from featurestore.io import mlflow_artifacts, uris
from featurestore.spec import bounds, store_arguments
from featurestore.spec.arguments import check_form, twice
from featurestore.spec.bounds import THREADS
from featurestore.spec.keys import MISSING, unset
from featurestore.spec.rules import Artifacts, field_names
from featurestore.spec.store_spec import KEYS, StoreSpec
from featurestore.spec.typed import Reader
from featurestore.store import FeatureStore

SETTING = re.compile(r"[A-Za-z_]\w*(\.[^=]+)?=.*", re.DOTALL)
FILES = ("data", "classes", "experiment")
"""Keys that name a file of keys, in the order in which these are merged."""
OPTIONS: dict[str, tuple[str, Any]] = {
    "store": ("store", str),
    "threads": ("threads", int),
    "memory_limit": ("memory_limit", str),
    "tracking.uri": ("tracking_uri", str),
    "runs": ("runs", str | list[str]),
}
"""Keys of the scripts that are options here, with their types."""
SUFFIXES = (".yaml", ".yml")
MANDATORY = ("tiles", "embeddings", "class_indices", "thresholds")


def is_setting(word: str) -> bool:
    """Return whether a word of the command line is of the form ``key=value``."""
    return SETTING.fullmatch(word) is not None


def take(options: argparse.Namespace, words: Sequence[str]) -> None:
    """Read the arguments ``key=value`` into the options, before any work.

    Parameters
    ----------
    options
        Gets ``files``, that are to be overlaid in this order, and ``values``, that go before them;
        keys that are options as well are set as such.

    Raises
    ------
    ConfigError
        One is not understood, with the nearest key that is, or is given twice.
    """
    files: dict[str, str] = {}
    rest = []
    for word in words:
        check_form(word, list(words), store_arguments.EXAMPLE)
        key, _, text = word.partition("=")
        if key in FILES:
            if key in files or (key == "data" and options.config is not None):
                raise twice(key, [f"--config {options.config}", *words])
            files[key] = Reader().argument(str, text, key)
        elif key in OPTIONS:
            name, kind = OPTIONS[key]
            setattr(options, name, Reader().argument(kind, text, key))
        else:
            rest.append(word)
    options.values = store_arguments.values_given(rest)
    StoreSpec().overlaid(options.values)
    options.files = files


def open_store(options: argparse.Namespace, **rules: Any) -> FeatureStore:
    """Open the store that files and arguments describe, some of its rules replaced."""
    bounds.check([("--threads", options.threads)], THREADS)
    mlflow_artifacts.use_tracking(options.tracking_uri)
    spec = replace(configured(options), **rules)
    store = FeatureStore(spec, options.threads, options.memory_limit)
    runs = [options.runs] if isinstance(options.runs, str) else options.runs
    return store.add_runs(*runs)


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
        spec = examples.digits_spec()
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
    if not any_name and not uri.endswith(SUFFIXES):
        others = ": digits, files, or a file" if group == "data" else ""
        raise ConfigError(
            f"`featurestore` has no {group}={uri}",
            found=f"names of configs/ are those of the scripts{others}",
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
