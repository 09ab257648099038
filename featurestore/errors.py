"""Every refusal of this project: what was wrong, what is there, what to do."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from featurestore.printing import Console, is_quiet, printable
from featurestore.redaction import redacted


class FeatureStoreError(Exception):
    """A refusal that a user can act on, without the secrets that were in what it tells of.

    Parameters
    ----------
    wrong
        What was wrong, in one sentence.
    found
        What is there instead.
    fix
        What to do about it.

    Attributes
    ----------
    artifact
        What it is about, by its name in a spec (`about`); None where nobody has said so.
    """

    artifact: str | None = None

    def __init__(self, wrong: str, *, found: str, fix: str) -> None:
        self.wrong, self.found, self.fix = map(redacted, (wrong, found, fix))
        super().__init__(self.wrong, self.found, self.fix)

    def __str__(self) -> str:
        wrong, found, fix = map(printable, (self.wrong, self.found, self.fix))
        return f"{wrong}\n  found: {found}\n  to do: {fix}"

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel between processes; the keyword-only arguments need help to be pickled.
        return _rebuild, (type(self), self.wrong, self.found, self.fix)


class FeatureStoreWarning(UserWarning):
    """Something that a user should know and that stops nothing."""

    def __init__(self, text: str) -> None:
        super().__init__(redacted(text))


class DamageWarning(FeatureStoreWarning):
    """What was kept between runs is damaged, and made again: it concerns this run alone."""


def _rebuild(kind: type[FeatureStoreError], wrong: str, found: str, fix: str) -> FeatureStoreError:
    return kind(wrong, found=found, fix=fix)


class ConfigError(FeatureStoreError):
    """An argument, a key or a value of a configuration that is not understood."""


class ArtifactError(FeatureStoreError):
    """An artifact is missing, unreadable, or its URI is not understood."""


class SchemaError(FeatureStoreError):
    """An artifact's columns, types, key or values break the input contract."""


class EmbeddingError(SchemaError):
    """Embeddings of unequal length, or with values that are not finite."""


class UnknownClassError(FeatureStoreError):
    """Classes, thresholds and class indices do not name the same set."""


class EmptyViewError(FeatureStoreError):
    """No tile is left."""


class JoinError(FeatureStoreError):
    """Tiles and embeddings hardly meet."""


class FoldError(FeatureStoreError):
    """A fold that does not exist or cannot be assigned."""


class SplitError(FeatureStoreError):
    """A held-out set that cannot be assigned, or would not be one."""


class LeakageError(FeatureStoreError):
    """A group stands on both sides of a split that promised otherwise."""


class QueryError(FeatureStoreError):
    """The engine refused a query."""


class TrackingError(FeatureStoreError):
    """MLflow does not answer, or takes no run."""


@contextmanager
def shown_warnings(console: Console) -> Iterator[None]:
    """Print this project's warnings as lines; other libraries' are for us, not for users."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("ignore" if is_quiet() else "always", FeatureStoreWarning)
        warnings.showwarning = lambda message, *_, **__: console.print(f"warning: {message}")
        yield


@contextmanager
def about(artifact: str) -> Iterator[None]:
    """Tell of what is refused in a block which artifact it is about, unless that is known."""
    try:
        yield
    except FeatureStoreError as error:
        error.artifact = error.artifact or artifact
        raise


@contextmanager
def os_errors_refused(wrong: str, fix: str) -> Iterator[None]:
    """Raise what the system says of a file as an `ArtifactError`."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(wrong, found=error.strerror or str(error), fix=fix) from error


@contextmanager
def library_needed(wrong: str, extra: str) -> Iterator[None]:
    """Refuse what needs a library that a block cannot import.

    Parameters
    ----------
    wrong
        What needs it.
    extra
        Of this project, that brings the library.

    Raises
    ------
    ArtifactError
        It is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise ArtifactError(
            wrong, found=str(error), fix=f"pip install 'tissue-probe[{extra}]'"
        ) from error
