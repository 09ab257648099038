"""A rule that rows break, and the errors made of it."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from featurestore.errors import FeatureStoreError, FeatureStoreWarning, SchemaError
from featurestore.views.folds import KEY

FIRST = 3  # keys that are named


MOST = 2**63 - 1


@dataclass(frozen=True)
class Violation:
    """A rule that the data breaks.

    Parameters
    ----------
    wrong, found, fix
        As in `featurestore.errors.FeatureStoreError`.
    rows
        Number of rows that break it, or None where it is not about rows.
    severity
        Errors refuse, warnings tell.
    kind
        The refusal that it is.
    """

    wrong: str
    found: str
    fix: str
    rows: int | None = None
    severity: Literal["error", "warning"] = "error"
    kind: type[FeatureStoreError] = SchemaError

    @property
    def refusal(self) -> FeatureStoreError:
        """The error to raise for it."""
        return self.kind(self.wrong[0].upper() + self.wrong[1:], found=self.found, fix=self.fix)


def raise_first(violations: Iterable[Violation]) -> None:
    """Raise for the first error among some violations; warnings are not looked at.

    Raises
    ------
    FeatureStoreError
        There is one.
    """
    for violation in violations:
        if violation.severity == "error":
            raise violation.refusal


def heed(violations: Iterable[Violation]) -> None:
    """Raise for the first error among some violations, or warn of each warning.

    Raises
    ------
    FeatureStoreError
        There is an error.
    """
    violations = list(violations)
    raise_first(violations)
    for violation in violations:
        warnings.warn(f"{violation.wrong}: {violation.found}", FeatureStoreWarning, stacklevel=3)


def key_text(row: Mapping[str, object]) -> str:
    """Spell a key, or a part of one, for a message."""
    return ", ".join(f"{name}={row[name]!r}" for name in (*KEY, "id") if name in row)
