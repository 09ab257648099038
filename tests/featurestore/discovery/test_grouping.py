"""Folds that are suggested: what is kept together, in how many, and what is said of it."""

from typing import Any

import pytest

from featurestore.discovery.cohort import Cohort
from featurestore.discovery.grouping import suggested

GROUPED = {"kfold_strategy": "stratified_group"}
PATIENTS, SLIDES = GROUPED | {"kfold_group": "patient_id"}, GROUPED | {"kfold_group": "slide_id"}


@pytest.mark.parametrize(
    ("patients", "slides", "given", "values", "words"),
    [
        (5, 9, None, PATIENTS, "folds keep patients together"),
        (2, 9, None, PATIENTS | {"k": 2}, "patients together; 2 folds, not 5: there are no more"),
        (1, 9, None, SLIDES, "slides together (1 patient): one whose slides are in several"),
        (0, 9, None, SLIDES, "slides together (patients are not known)"),
        (0, 4, None, SLIDES | {"k": 4}, "on both sides; 4 folds, not 5"),
        (2, 9, 3, SLIDES, "slides together (2 patients)"),
        (2, 5, 6, {}, "folds divide slides: 5 slides and 2 patients make no 6 folds"),
        (0, 1, None, {}, "folds divide slides: 1 slide"),
    ],
)
def test_groups_stay_together_as_far_as_there_are_some(
    patients: int, slides: int, given: int | None, values: dict[str, Any], words: str
):
    """Patients before slides; fewer folds where groups are few, unless the number was given."""
    result = suggested(Cohort(slides, patients=patients), given or 5, given is not None)
    assert result.values == values
    assert words in result.why
