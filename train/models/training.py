"""How a model was trained, as its checkpoint says it to whoever has nothing else."""

from dataclasses import dataclass, replace
from typing import Any

UNTOUCHED = "untouched number"
NONE = (
    "none: every figure is of tiles that something was selected by; mode=test on held-out tiles "
    "gives one"
)


@dataclass(frozen=True)
class Training:
    """How a head was trained, and why it is this one: what page, terminal and card say alike.

    Parameters
    ----------
    head
        Which of a run's heads is registered, for people.
    settings
        The keys of the configuration that acted on it, with the values that it was trained by.
    rules
        By which its tiles were kept and labelled.
    selection
        What was selected, and by which figure.
    untouched
        The figures of the run that selected nothing, by their names in MLflow; None without any.
    doubt
        Why figures of test tiles are not such, ``none: ...`` or ``not known: ...``; else empty.
    """

    head: str
    settings: dict[str, Any]
    rules: dict[str, Any]
    selection: dict[str, str]
    untouched: str | None
    doubt: str = ""

    @property
    def facts(self) -> dict[str, str]:
        """What a reader of the run's figures has to know, by what it is about."""
        selected = {f"selected: {what}": by for what, by in self.selection.items()}
        untouched = self.doubt or NONE
        if self.untouched:
            untouched = f"{self.untouched}, which nothing was selected by"
        return {"registered head": self.head, **selected, UNTOUCHED: untouched}

    @property
    def verdict(self) -> str:
        """The figures that selected nothing; ``none``, or ``not known``."""
        return self.untouched or self.doubt.partition(":")[0] or "none"

    def doubted(self, doubt: str) -> "Training":
        """Return it with what is wrong with the test tiles, if anything is."""
        return replace(self, untouched=None, doubt=doubt) if doubt else self

    @property
    def text(self) -> str:
        """All of it for people, as a list in Markdown."""
        rules = {name: rule for name, rule in self.rules.items() if name != "class_indices"}
        lines = self.facts | self.settings | rules
        return "\n".join(f"- {what}: {value}" for what, value in lines.items())
