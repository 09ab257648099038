"""The alias that a model is served by: moved and rolled back."""

from collections.abc import Callable

from featurestore.errors import ArtifactError, FeatureStoreError
from train.promotion.lock import locked
from train.tracking.registry import Version, alias_version, client, tag, translated


class OvertakenError(FeatureStoreError):
    """The alias moved while the candidate was looked at."""


def previous(alias: str) -> str:
    """Return the alias of the version that an alias pointed at before."""
    return f"previous_{alias}"


def move(candidate: Version, alias: str, champion: Version | None) -> None:
    """Let an alias point at a version, if it still points where it did; keep the one before.

    Parameters
    ----------
    champion
        The version that the candidate was compared with.

    Raises
    ------
    OvertakenError
        The alias points elsewhere by now.
    BusyError
        See `locked`.
    """
    before = champion.number if champion else "none"
    with locked(candidate.model, f"{alias}: {before} -> {candidate.number}"):
        now = alias_version(candidate.model, alias)
        if (now.number if now else "none") != before:
            raise OvertakenError(
                f"{alias} of {candidate.model} moved while {candidate} was looked at",
                found=f"{now or 'no version'}{_mover(now)} instead of {champion or 'none'}",
                fix="run the same command again: it compares with the new one",
            )
        with translated(f"{alias} of {candidate.model} could not be moved"):
            # In this order the champion has an alias at every moment, whatever fails.
            if champion:
                _point(candidate.model, previous(alias), champion.number)
            _point(candidate.model, alias, candidate.number)
        tag(candidate, {"decision": "promoted"})


def rollback(model: str, alias: str, record: Callable[[Version, Version], None]) -> None:
    """Let an alias and that of the version before change places; done twice, it is undone.

    Parameters
    ----------
    record
        Writes the evidence, given the version that goes and the one that comes back.

    Raises
    ------
    ArtifactError
        There is no version before.
    """
    with locked(model, f"{alias}: rollback"):
        now, before = alias_version(model, alias), alias_version(model, previous(alias))
        if now is None or before is None or now.number == before.number:
            raise ArtifactError(
                f"There is nothing to roll {alias} of {model} back to",
                found=f"{alias}: {now or 'none'}, {previous(alias)}: {before or 'none'}",
                fix="promote the version that you want",
            )
        record(now, before)
        with translated(f"{alias} of {model} could not be moved"):
            _point(model, alias, before.number)
            _point(model, previous(alias), now.number)


def _point(model: str, alias: str, number: str) -> None:
    client().set_registered_model_alias(model, alias, number)


def _mover(now: Version | None) -> str:
    tags = now.tags if now else {}
    signature = [tags.get(f"promotion.{key}") for key in ("author", "time")]
    return f" (by {signature[0]}, {signature[1]})" if all(signature) else ""
