"""Whether what the scripts need is installed: looked for before any of it is imported."""

import sys
from importlib.util import find_spec

from featurestore.errors import ConfigError
from featurestore.printing import print_error

NEEDED = (
    "accelerate", "jinja2", "omegaconf", "psutil", "safetensors", "torch", "torchmetrics",
)  # fmt: skip
"""What the extra ``train`` brings, by the names that are imported."""


def check_or_exit() -> None:
    """Refuse an environment without the extra ``train`` with exit status 2, or return."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print_error(ConfigError(
            f"{sys.argv[0]} needs the extra `train`, which is not installed",
            found=f"no {', '.join(missing)} in {sys.prefix}",
            fix="pip install -e '.[train]'",
        ))  # fmt: skip
        sys.exit(2)
