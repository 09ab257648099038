"""From a configuration to the store on its artifacts: what every script does first."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from featurestore import examples
from featurestore.io import preflight
from featurestore.io.atomic import HOME
from featurestore.io.objects import shared
from featurestore.spec.store_spec import ARTIFACTS, StoreSpec
from featurestore.store import FeatureStore
from train.config.schema import Config
from train.config.text import plain


def check_places(config: Config) -> None:
    """Refuse folders that cannot be written: of the output, and of a fit's data and state."""
    if config.mode == "fit":
        preflight.check_folder(HOME, "work in another folder: a fit keeps its data and state there")
    if config.output:
        preflight.check_folder(Path(config.output), "set output to another folder")


def open_store(config: Config, folds: Collection[str] = ()) -> FeatureStore:
    """Open the store on the artifacts, which embedded data builds on its first use.

    Parameters
    ----------
    folds
        URIs of the assignments of a run that is replayed.
    """
    shared.use(config.store)
    built: dict[str, str] = {}
    spec = StoreSpec.from_config(plain(config))
    if config.data.snapshot:  # which holds what it was made of
        nowhere: dict[str, Any] = dict.fromkeys((*ARTIFACTS, "encoder"))
        return _opened(replace(spec, **nowhere), config)
    if config.data.builder == "digits":
        built = examples.digits(log=config.tracking.enabled)
    elif config.data.builder == "synthetic":
        built = examples.synthetic(config.data.synthetic)
    for name, uri in built.items():
        if getattr(config.data, name) is None:  # one's own artifact goes before
            setattr(config.data, name, uri)
    return _opened(StoreSpec.from_config(plain(config)), config, folds)


def logs_digits(config: Config) -> bool:
    """Return whether to open the store would log the digits to MLflow, for the first time."""
    data = config.data
    digits = data.builder == "digits" and not data.snapshot and config.tracking.enabled
    return digits and not examples.are_digits_logged()


def with_artifacts(config: Config, built: dict[str, str]) -> Config:
    """Return a configuration that reads artifacts where it names none, and records nothing."""
    named: dict[str, Any] = {
        name: uri for name, uri in built.items() if getattr(config.data, name) is None
    }
    data = replace(config.data, builder="none", **named)
    return replace(config, data=data, tracking=replace(config.tracking, enabled=False))


def _opened(spec: StoreSpec, config: Config, folds: Collection[str] = ()) -> FeatureStore:
    return FeatureStore(
        spec,
        config.threads,
        config.memory_limit,
        remember=config.tracking.enabled,
        folds=folds,
    )


def with_rules(store: FeatureStore, rules: dict[str, Any]) -> FeatureStore:
    """Return a store on the same artifacts under changed rules; ``thresholds.Fat`` is one."""
    if not rules:
        return store
    named = {key: value for key, value in rules.items() if "." not in key}
    thresholds = dict(store.spec.thresholds or {})
    thresholds |= {k.split(".", 1)[1]: v for k, v in rules.items() if k.startswith("thresholds.")}
    spec = replace(store.spec, thresholds=thresholds, **named)
    return FeatureStore(
        spec,
        store.threads,
        store.memory_limit,
        remember=store.remember,
        folds=store.logged_folds,
    )
