"""Slides that two artifacts may spell otherwise: pairs of names, and what differs in them."""

import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

NEAR = 3  # names that may begin with another, of those that follow it in order
TRIED = 3  # of the most frequent beginnings and ends


class Spelling(NamedTuple):
    """What differs between names, in words, and the other name by each that has one.

    ``suffix`` is what one of the two artifacts has at the end of its names, and nothing else.
    """

    text: str
    other: Mapping[str, str]
    suffix: str = ""


def _last(name: str) -> str:
    return re.split(r"[/\\]", name)[-1]


def _stem(name: str) -> str:
    return re.sub(r"(?<=.)\.\w+$", "", name)


def _number(name: str) -> str:
    return name.lstrip("0")


def _compatible(name: str) -> str:
    return unicodedata.normalize("NFKC", name)


FORMS: dict[str, Callable[[str], str]] = {
    "in upper and lower case": str.lower,
    "in blanks before or after it": str.strip,
    "in zeros before it": _number,
    "in letters that only look alike (Unicode's compatibility forms)": _compatible,
    "in the suffix of a file": _stem,
    "in a folder before it": _last,
    "in folder, suffix and case": lambda name: _stem(_last(_compatible(name))).casefold().strip(),
}
"""What may differ, and the form that names have alike without it.

Composed and decomposed letters are none of it: keys are read in one form, see
`featurestore.contract.parquet_table.NAMES`.
"""


def spellings(tiles: Collection[str], embeddings: Collection[str]) -> Iterator[Spelling]:
    """Yield ways in which names of one artifact become names of the other, the simplest first.

    Parameters
    ----------
    tiles, embeddings
        Names of slides. Those that both have are left out.
    """
    wanted = sorted(set(tiles) - set(embeddings))
    offered = sorted(set(embeddings) - set(tiles))
    for ending, place in ((True, "ends in"), (False, "begins with")):
        for affix, longer in _affixed(wanted, offered, ending):
            suffix = affix if ending else ""
            yield Spelling(f"slide_id of the embeddings {place} {affix!r}", longer, suffix)
        for affix, longer in _affixed(offered, wanted, ending):
            shorter = {long: short for short, long in longer.items()}
            suffix = affix if ending else ""
            yield Spelling(f"slide_id of the tiles {place} {affix!r}", shorter, suffix)
    for text, form in FORMS.items():
        if pairs := _alike(wanted, offered, form):
            yield Spelling(f"slide_id differs {text}", pairs)


def _affixed(
    shorter: Sequence[str], longer: Sequence[str], ending: bool
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield what most often makes longer names of shorter ones, and the pairs that it makes.

    Parameters
    ----------
    ending
        Whether it stands behind the shorter name, not before it.
    """
    turn = 1 if ending else -1
    turned, follows = sorted(name[::turn] for name in longer), Counter[str]()
    for name in (name[::turn] for name in shorter):
        start = bisect_left(turned, name)
        for other in turned[start : start + NEAR]:
            if other.startswith(name):
                follows[other[len(name) :]] += 1
    present = set(longer)
    for affix in [text[::turn] for text, _ in follows.most_common(TRIED)]:
        pairs = {name: name + affix if ending else affix + name for name in shorter}
        yield affix, {name: other for name, other in pairs.items() if other in present}


def _alike(
    wanted: Collection[str], offered: Collection[str], form: Callable[[str], str]
) -> dict[str, str]:
    """Return the one other name that has the same form, or is that form, by name."""
    by_form: dict[str, list[str]] = {}
    for other in offered:
        for key in {form(other), other}:
            by_form.setdefault(key, []).append(other)
    pairs = {}
    for name in wanted:
        others = {other for key in (form(name), name) for other in by_form.get(key, [])}
        if len(others) == 1:
            pairs[name] = others.pop()
    return pairs
