"""Libraries that only some formats need."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featurestore.errors import ArtifactError


@contextmanager
def needed(library: str, extra: str, file: Path) -> Iterator[None]:
    """Refuse a file whose library cannot be imported in the block.

    Parameters
    ----------
    extra
        The extra of this project that installs it.

    Raises
    ------
    ArtifactError
        It is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise ArtifactError(
            f"{file} cannot be read without {library}",
            found=str(error),
            fix=f"pip install 'tissue-probe[{extra}]'",
        ) from error
