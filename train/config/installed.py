"""Whether what the scripts need is installed: looked for before any of it is imported."""

import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from featurestore.errors import ConfigError
from featurestore.printing import print_error, say

NEEDED = (
    "accelerate", "jinja2", "omegaconf", "psutil", "safetensors", "torch", "torchmetrics",
)  # fmt: skip
"""What the extra ``train`` brings, by the names that are imported."""


def check_or_exit() -> None:
    """Refuse an environment without the extra ``train`` with exit status 2, or return.

    Who asks for the version is told, and needs nothing else.
    """
    if "--version" in sys.argv[1:]:
        say(f"{Path(sys.argv[0]).name} of tissue-probe {version('tissue-probe')}")
        sys.exit(0)
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print_error(ConfigError(
            f"{sys.argv[0]} needs the extra `train`, which is not installed",
            found=f"no {', '.join(missing)} in {sys.prefix}",
            fix="pip install -e '.[train]'",
        ))  # fmt: skip
        sys.exit(2)
