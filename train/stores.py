"""From a configuration to the store on its artifacts."""

from featurestore import examples
from featurestore.spec import StoreSpec
from featurestore.store import FeatureStore
from train.config import plain
from train.schema import Config


def open_store(config: Config) -> FeatureStore:
    """Open the store on the artifacts, which embedded data builds on its first use."""
    built: dict[str, str] = {}
    if config.data.builder == "digits":
        built = examples.digits(log=config.tracking.enabled)
    elif config.data.builder == "synthetic":
        built = examples.synthetic(config.data.synthetic)
    for name, uri in built.items():
        if getattr(config.data, name) is None:  # one's own artifact goes before
            setattr(config.data, name, uri)
    return FeatureStore(
        StoreSpec.from_config(plain(config)),
        config.threads,
        config.memory_limit,
        remember=config.tracking.enabled,
    )


def class_names(config: Config) -> list[str]:
    """Return the class names by index."""
    return sorted(config.class_indices, key=config.class_indices.__getitem__)
