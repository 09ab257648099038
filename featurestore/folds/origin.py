"""Where an assignment comes from: what it is of, what it extends, when and why it was made."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

FIRST = "first"
EXTENDS = "extends"
ASKED = "new, as asked for"
CONVERTED = "as logged by an earlier version"
FRESH = (FIRST, ASKED)
TAG = "featurestore.folds."  # begins the names of tags in MLflow


@dataclass(frozen=True)
class Origin:
    """The lineage of an assignment.

    Parameters
    ----------
    cohort
        Digest of the tiles, the rules and the method.
    rules
        Digest of the rules and the method.
    digest
        That of the rows: what the folds are, however they came about.
    made
        When, in UTC.
    why
        `FIRST`, `EXTENDS`, `ASKED` or `CONVERTED`.
    extends
        The digest of the assignment that this one goes on from, or nothing.
    known, new, gone
        How many groups, or tiles, kept their fold, were given one, and are in the cohort no more.
    rows
        Of the assignment, those that are gone among them.
    """

    cohort: str
    rules: str
    digest: str
    made: str
    why: str = FIRST
    extends: str = ""
    known: int = 0
    new: int = 0
    gone: int = 0
    rows: int = 0

    @property
    def name(self) -> str:
        """What the assignment is kept under: made anew on demand it is another one each time."""
        parts = [self.cohort, self.digest, *([self.made] if self.why == ASKED else [])]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def text(self) -> str:
        """It in a line, for people."""
        of = f" {self.extends[:16]}" if self.extends else ""
        counts = f"{self.known:,} known, {self.new:,} new, {self.gone:,} gone"
        return f"{self.why}{of}, {self.made[:16]} UTC: {counts}"

    def described(self, is_kept: bool) -> str:
        """Return it in a line: of what was there already, that it is as before."""
        return f"as before ({self.text} then)" if is_kept else self.text

    @property
    def tags(self) -> dict[str, str]:
        """It as tags of a run."""
        return {TAG + name: str(value) for name, value in asdict(self).items()}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Origin":
        """Return what was written as plain values, or as texts."""
        kinds = {entry.name: int if entry.type in (int, "int") else str for entry in fields(cls)}
        read: dict[str, Any] = {n: kinds[n](value) for n, value in values.items() if n in kinds}
        return cls(**read)

    @classmethod
    def of_tags(cls, tags: Mapping[str, str]) -> "Origin":
        """Return what `tags` have told a run."""
        return cls.of({k.removeprefix(TAG): v for k, v in tags.items() if k.startswith(TAG)})
