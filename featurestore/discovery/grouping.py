"""Which folds keep together what belongs together, suggested by what a cohort tells."""

from typing import Any, NamedTuple

from featurestore.discovery.cohort import PATIENT, Cohort
from featurestore.printing import counted

SLIDE = "slide_id"


class Grouping(NamedTuple):
    """Keys of folds that are suggested, none where nothing is, and why these, for people."""

    values: dict[str, Any]
    why: str


def suggested(tiles: Cohort, k: int, k_given: bool = False) -> Grouping:
    """Return folds by patient; by slide where patients are not told; fewer where groups are few.

    Parameters
    ----------
    tiles
        The training tiles, which bring no folds.
    k
        The number of folds.
    k_given
        Whether somebody asked for that many: it is not made less.
    """
    patients = counted(tiles.patients, "patient") if tiles.patients else "patients are not known"
    for column, groups in ((PATIENT, tiles.patients), (SLIDE, tiles.slides)):
        if groups < (k if k_given else 2):
            continue
        values = {"kfold_strategy": "stratified_group", "kfold_group": column}
        fewer = {"k": groups} if groups < k else {}
        why = f"folds keep {'patients' if column == PATIENT else 'slides'} together"
        if column == SLIDE:
            why += f" ({patients}): one whose slides are in several folds is on both sides"
        if fewer:
            why += f"; {groups} folds, not {k}: there are no more of them"
        return Grouping(values | fewer, why)
    slides = counted(tiles.slides, "slide")
    return Grouping({}, f"folds divide slides: {slides} and {patients} make no {k} folds")
