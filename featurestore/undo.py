"""What is made for a command that is then refused: whoever makes it says how it is undone.

A refusal leaves nothing behind, though folders are made long before the last thing is looked at.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from featurestore.errors import FeatureStoreError

_ON_TRIAL: list[tuple[str | None, list["Trial"]]] = []  # kind, trials of each `undone_if_refused`


class Trial(NamedTuple):
    """What `undone_if_refused` does after a refusal: all is let go of, then undone."""

    let_go: Callable[[], object]
    undo: Callable[[], object]


@contextmanager
def undone_if_refused(kind: str | None = None) -> Iterator[None]:
    """Undo what is built in the meantime if it ends in a refusal, the last first.

    What another process has begun to use stays. So does all after an interruption, which refuses
    nothing: the next run goes on with it.

    Parameters
    ----------
    kind
        Undo entries of this kind alone.
    """
    with _on_trial(kind) as trials:
        try:
            yield
        except FeatureStoreError:
            _undo_all(trials)
            raise


@contextmanager
def always_undone() -> Iterator[None]:
    """Undo what is built in the meantime, as `undone_if_refused`, also if nothing is refused."""
    with _on_trial(None) as trials:
        with undone_if_refused():
            yield
        _undo_all(trials)


@contextmanager
def _on_trial(kind: str | None) -> Iterator[list[Trial]]:
    """Yield a list of what is built in the meantime."""
    trials: list[Trial] = []
    _ON_TRIAL.append((kind, trials))
    try:
        yield trials
    finally:
        _ON_TRIAL.pop()


def _undo_all(trials: Sequence[Trial]) -> None:
    for trial in trials:
        trial.let_go()  # or this process would be in its own way
    for trial in reversed(trials):
        trial.undo()


def try_out(let_go: Callable[[], object], undo: Callable[[], object], kind: str = "") -> None:
    """Have something, or an entry of a kind, undone after a refusal, see `undone_if_refused`."""
    for only, trials in _ON_TRIAL:
        if only in (None, kind):
            trials.append(Trial(let_go, undo))
