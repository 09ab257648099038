"""The champions of a model, one after another."""

from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from train.promotion.decision import Decision
from train.tracking import registry
from train.tracking.registry import Version

STAMP = "%Y%m%dT%H%M%S.%fZ"
OUTCOMES = ("promoted", "restored")  # of versions that an alias pointed at from then on


@dataclass(frozen=True)
class AliasMove:
    """A move of an alias to a version.

    Parameters
    ----------
    time
        When, UTC.
    version
        Its number.
    outcome
        ``promoted`` or ``restored``.
    figures
        What it was judged by then, in words; empty for a rollback.
    author, why
        Who moved it, and for what reason.
    """

    time: datetime
    version: str
    outcome: str
    figures: str
    author: str
    why: str


def record(decision: Decision, version: Version) -> None:
    """Write down that an alias points at another version now."""
    facts = {name: getattr(decision, name) for name in ("outcome", "figures", "author")}
    facts |= {"why": decision.reason}
    registry.record_move(version, decision.alias, decision.time.astimezone(UTC), facts)


def alias_moves(model: str, alias: str) -> list[AliasMove]:
    """Return the moves of an alias, in their order.

    A last move that was not written down is read from the tags of its version.

    Raises
    ------
    RegistryError
        There is no such model.
    """
    moves = [
        AliasMove(
            datetime.strptime(time, STAMP).replace(tzinfo=UTC),
            **{name: str(facts.get(name, "")) for name in
               ("version", "outcome", "figures", "author", "why")},
        )
        for time, facts in registry.moves(model, alias).items()
    ]  # fmt: skip
    now = registry.alias_version(model, alias)
    if now and (not moves or moves[-1].version != now.number):
        tags = {name: now.tags.get(f"promotion.{name}", "") for name in ("time", "author")}
        time = _time(tags["time"])
        moves.append(AliasMove(time, now.number, "", "", tags["author"], "not written down"))
    return moves


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:  # moved by other means
        return datetime.fromtimestamp(0, UTC)


def table(moves: list[AliasMove]) -> pa.Table:
    """Return moves as a table for people, the latest last."""
    return pa.table(
        {
            "since (UTC)": [f"{one.time:%Y-%m-%d %H:%M}" if one.time.year > 1970 else "not known"
                            for one in moves],
            "version": [one.version for one in moves],
            "figures": [one.figures for one in moves],
            "author": [one.author for one in moves],
            "why": [" ".join(filter(None, [one.outcome, one.why and f"({one.why})"]))
                    for one in moves],
        }
    )  # fmt: skip
