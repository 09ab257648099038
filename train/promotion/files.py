"""The files of candidate and champion, as the registry gives them out now."""

from collections.abc import Sequence
from pathlib import Path

from featurestore.errors import ArtifactError
from train.promotion.checks import Check, files_line
from train.tracking import version_files
from train.tracking.registry import Version

Copy = tuple[Version, Path]
"""A version, and the folder that its files were copied into."""


def fetch(candidate: Version, champion: Version | None, folder: Path) -> list[Copy]:
    """Copy the files of both versions into a folder; return the candidate's first.

    Raises
    ------
    ArtifactError
        They are not there.
    """
    number = candidate.number
    copies = [(candidate, version_files.fetch(candidate.model, number, folder / "candidate"))]
    return copies if champion is None else [*copies, _champion(champion, folder / "champion")]


def _champion(champion: Version, folder: Path) -> Copy:
    """Copy the files of the champion; without them nothing can be compared with it."""
    remains = "none of its files"
    try:
        copy = version_files.fetch(champion.model, champion.number, folder)
    except ArtifactError as error:
        copy, remains = folder, f"{error.wrong}: {error.found}"
    if version_files.sha256_lines(copy):
        return champion, copy
    raise ArtifactError(
        f"The champion, {champion}, cannot be compared with: its files are not there",
        found=remains,
        fix="restore them; or give the alias back to the version before by `python "
        f"train/promote.py rollback model={champion.model}`, or delete the alias in MLflow",
    )


def check(copies: Sequence[Copy]) -> Check:
    """Return the line of the gate on files that are not as they were registered."""
    return files_line({str(one): version_files.verify_files(one, copy) for one, copy in copies})
