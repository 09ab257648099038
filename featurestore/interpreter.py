"""How Python runs a command: a process that imports much, works for seconds, and ends."""

import atexit
import gc

SELDOM = (100_000, 50, 100)
"""New objects before Python looks for garbage among the newest; by default 700 to 2,000."""


def collect_seldom() -> None:
    """Look for garbage seldom while this process runs, and not among what it leaves at its end.

    What imports make stays. To look through it again and again was a seventh of the main command's
    processor time; most of that was spent at the end, on what the system frees anyway. Memory that
    nobody refers to is freed at once, as ever; only cycles wait.
    """
    gc.set_threshold(*SELDOM)
    atexit.register(gc.freeze)  # the last of all: later ones come first
