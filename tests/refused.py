"""Arguments as refusals quote them."""

from pathlib import Path


def arguments(named: dict[str, str], *more: str) -> list[str]:
    """Return the arguments of a fit on some artifacts, with the classes Fat and Muscle alone."""
    Path("two.yaml").write_text(
        "class_indices: {Fat: 0, Muscle: 1}\nthresholds: {Fat: 0.5, Muscle: 0.5}\nnormalize: none\n"
    )
    Path("own.yaml").write_text("data: {name: own}\n")
    given = {"classes": "two.yaml", "data": "own.yaml", "max_epochs": "2", **named}
    changed = {argument.partition("=")[0] for argument in more}
    return [*(f"{key}={value}" for key, value in given.items() if key not in changed), *more]


def imported(importtime: str) -> set[str]:
    return {line.rpartition("|")[2].strip() for line in importtime.splitlines() if "|" in line}
