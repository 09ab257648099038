"""By which rules tiles are divided into those to train on and those to test."""

from dataclasses import dataclass, field

from featurestore.errors import ConfigError
from featurestore.spec import bounds
from featurestore.spec.bounds import SEEDS, within

LABEL = "label"
"""The word of `SplitRules.stratify` that is no column: the label under the configured rules."""


@dataclass(frozen=True)
class SplitRules:
    """By which rules a held-out set is chosen.

    Parameters
    ----------
    test
        The share of the tiles of each stratum that is held out.
    group
        Column of tiles or slides that must not be divided.
    stratify
        Columns of tiles or slides, and `LABEL`: tiles alike in all of them are one stratum.
    seed
        Decides between groups that are alike.

    Examples
    --------
    >>> SplitRules(0.2, "patient_id", ("organ", "label")).check()
    >>> SplitRules(1.5).check()
    Traceback (most recent call last):
        ...
    featurestore.errors.ConfigError: ...
    """

    test: float = field(default=0.2, metadata=within("(0, 1)"))
    group: str = "slide_id"
    stratify: tuple[str, ...] = (LABEL,)
    seed: int = field(default=0, metadata=within(SEEDS))

    def check(self) -> None:
        """Refuse what can be refused without data.

        Raises
        ------
        ConfigError
            A number is out of its bounds, or a column has two parts.
        """
        for name, interval in bounds.of(SplitRules).items():
            bounds.check([(f"--{name}", getattr(self, name))], interval)
        for name in self.stratify:
            if name == self.group or self.stratify.count(name) > 1:
                raise ConfigError(
                    f"{name!r} cannot be a stratum"
                    + (": it is the group, of which each is whole" if name == self.group else ""),
                    found=f"--group {self.group} --stratify {','.join(self.stratify)}",
                    fix="name each column once",
                )

    @property
    def columns(self) -> list[str]:
        """The columns of tiles or slides that are asked for."""
        named = dict.fromkeys([self.group, *self.stratify])
        return [name for name in named if name not in ("slide_id", LABEL)]
