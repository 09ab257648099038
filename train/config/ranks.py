"""Which of several processes prints_errors for all."""

from collections.abc import Mapping

LAUNCHED = ("LOCAL_RANK", "MASTER_ADDR")
"""What torchrun and accelerate set beside the rank, for several processes alone to meet by."""


def prints_errors(environment: Mapping[str, str]) -> bool:
    """Return whether this process is to print the errors: the only one, or the first of several.

    A rank that an earlier launch has left in the environment silences nothing.
    """
    several = environment.get("WORLD_SIZE", "1").strip() not in ("", "0", "1")
    ranked = several and all(environment.get(name) for name in LAUNCHED)
    return not ranked or environment.get("RANK", "0").strip() == "0"
