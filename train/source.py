"""Which commit of the code runs."""

import os
import subprocess
from pathlib import Path

COMMIT = "TISSUE_PROBE_COMMIT"
"""Set where the code lies without its history, as in a container."""


def git_commit() -> str | None:
    """Return the commit of this checkout, ``-dirty`` appended if it has changes."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return os.environ.get(COMMIT)
