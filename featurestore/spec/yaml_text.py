"""Plain values as YAML that every reader reads alike."""

from collections.abc import Mapping
from typing import Any

import yaml

from featurestore.spec.scalars import TEXT


class Dumper(yaml.SafeDumper):
    """Quotes what PyYAML would write as it is and fold when it reads: Unicode's breaks of lines."""


def quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Write text with control characters in quotes."""
    return dumper.represent_scalar(TEXT, text, style=None if text.isprintable() else '"')


Dumper.add_representer(str, quoted)


def dumped(values: Mapping[str, Any]) -> str:
    """Return plain values as YAML, in their order, a line a value however long it is."""
    return yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=2**31)
