"""Arguments of ``featurestore completion``."""

from typing import Any

SHELLS = ("bash", "zsh")


def add(commands: Any) -> None:
    """Add the command to a parser's."""
    completion = commands.add_parser(
        "completion", help="what a shell needs to complete commands, options and keys"
    )
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(run="completion:run")
