"""Keys of the configuration that are the store's: declared once, in `featurestore.spec`."""

from dataclasses import MISSING as NO_DEFAULT
from dataclasses import field, fields
from typing import Any

from featurestore.spec.store_spec import StoreSpec

STORE = {entry.name: entry for entry in fields(StoreSpec)}


def store_key(name: str, **default: Any) -> Any:
    """Return the field of a key that is the store's: its default, its line and its interval.

    Parameters
    ----------
    name
        Of the field of `StoreSpec`.
    default
        ``default_factory``, where what stands for nothing is another value here.
    """
    spec = STORE[name]
    if not default and spec.default_factory is not NO_DEFAULT:
        default = {"default_factory": spec.default_factory}
    return field(metadata=spec.metadata, **(default or {"default": spec.default}))
