"""The questions that come with the feature store: SQL by a file's name, wherever this is installed.

They lie in ``sql/`` of a checkout, and in the package where a wheel was installed.
"""

from pathlib import Path

from featurestore.errors import ArtifactError
from featurestore.spec.typed import nearest

PACKAGE = Path(__file__).parent.parent


def folder() -> Path:
    """Return where the questions are."""
    inside = PACKAGE / "sql"
    return inside if inside.is_dir() else PACKAGE.parent / "sql"


def names() -> list[str]:
    """Return the names of the questions."""
    return sorted(file.stem for file in folder().glob("*.sql"))


def read(file: Path) -> str:
    """Return the text of a file of SQL, or of a question by its name.

    Raises
    ------
    ArtifactError
        It is neither, or not UTF-8.
    """
    question = folder() / f"{file}.sql"
    try:
        is_question = str(file) in names() and not file.exists()
        return (question if is_question else file).read_text("utf-8")
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{file} cannot be read",
            found=(getattr(error, "strerror", None) or str(error)) + nearest(str(file), names()),
            fix=f"name a .sql file in UTF-8, or a question: {', '.join(names())}",
        ) from error
