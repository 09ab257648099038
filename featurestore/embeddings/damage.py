"""Which parts are damaged: what is remembered of their files is believed, else they are read."""

from collections.abc import Iterable

from featurestore.embeddings.part import Part, damage, is_shared, seen
from featurestore.io import digests


def damages(parts: Iterable[Part], wholly: bool = False) -> dict[str, str]:
    """Return what is wrong with some parts, in words, by their names.

    A part whose files are those that were written, or were compared since, is believed.

    Parameters
    ----------
    wholly
        Whether every byte is read, whatever is remembered.
    """
    identities = {part: seen(part) for part in parts}
    wrong = {
        part.name: fault
        for part, fault in identities.items()
        if isinstance(fault, str) and (part.values.exists() or not is_shared(part.name))
    }
    present = {part: one for part, one in identities.items() if not isinstance(one, str)}
    recorded = {} if wholly else digests.known(one for both in present.values() for one in both)
    doubtful = [
        part
        for part, both in present.items()
        if any(recorded.get(one) != part.when_whole for one in both)
    ]
    for part in doubtful:
        if fault := damage(part):
            wrong[part.name] = fault
    remember(part for part in doubtful if part.name not in wrong)
    return wrong


def remember(parts: Iterable[Part]) -> None:
    """Remember, for other processes as well, that the files of some parts hold them.

    What another machine has made, and is not here yet, is compared when it comes.
    """
    here = [part for part in parts if not isinstance(seen(part), str)]
    named = {file: part.when_whole for part in here for file in (part.keys, part.values)}
    digests.remember(named)
