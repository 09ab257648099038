"""Whether what the scripts need is installed: looked for before any of it is imported."""

import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from featurestore.errors import ConfigError
from featurestore.interpreter import collect_seldom
from featurestore.printing import be_quiet, print_error, say

NEEDED = (
    "accelerate", "jinja2", "omegaconf", "psutil", "safetensors", "torch", "torchmetrics",
)  # fmt: skip
"""What the extra ``train`` brings, by the names that are imported."""

QUIET = "--quiet"


def _in_a_line(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Show an exception that nobody has caught, of which Python then makes the exit status."""
    if issubclass(kind, KeyboardInterrupt):
        say("interrupted", sys.stderr)  # it ends by the signal: 130, as a shell counts
    elif issubclass(kind, BrokenPipeError):  # `... | head`
        sys.stderr.close()  # or Python would tell at its end of what could not be written
    else:
        sys.__excepthook__(kind, error, trace)


def check_or_exit() -> None:
    """Refuse an environment without the extra ``train`` with exit status 2, or return.

    What all scripts take is taken here, before anything is imported: ``--version``, which needs
    nothing else; ``--quiet``; and Ctrl-C, of which one line is said and no traceback.
    """
    collect_seldom()
    sys.excepthook = _in_a_line
    while QUIET in sys.argv[1:]:
        sys.argv.remove(QUIET)
        be_quiet()
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
