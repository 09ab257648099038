"""Names of slides that two artifacts spell otherwise: which pairs are found, and in what words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.contract.spellings import spellings

NAMES = ["s1", "s2", "s10", "TCGA-A.B3"]


@pytest.mark.parametrize(
    ("tiles", "embeddings", "text"),
    [
        (NAMES, [f"{name}.svs" for name in NAMES], "slide_id of the embeddings ends in '.svs'"),
        ([f"{name}.svs" for name in NAMES], NAMES, "slide_id of the tiles ends in '.svs'"),
        (NAMES, [f"mou_{name}" for name in NAMES], "slide_id of the embeddings begins with 'mou_'"),
        ([f"mou_{name}" for name in NAMES], NAMES, "slide_id of the tiles begins with 'mou_'"),
        (NAMES[:3], ["S1", "S2", "S10"], "slide_id differs in upper and lower case"),
        (NAMES, [f" {n} " for n in NAMES], "slide_id differs in blanks before or after it"),
        (["007", "014"], ["7", "14"], "slide_id differs in zeros before it"),
        (["a.svs", "b.tiff"], ["a", "b"], "slide_id differs in the suffix of a file"),
        (["a", "b"], ["1/a", "2/b"], "slide_id differs in a folder before it"),
        (["ﬁg", "ﬁn"], ["fig", "fin"], "slide_id differs in letters that only look alike"),
        (["/w/A.svs", "/v/B.ndpi"], ["a", "b"], "slide_id differs in folder, suffix and case"),
    ],
)
def test_the_first_spelling_that_pairs_all_names_it(
    tiles: list[str], embeddings: list[str], text: str
):
    complete = [one for one in spellings(tiles, embeddings) if len(one.other) == len(tiles)]
    assert complete[0].text.startswith(text)
    assert dict(complete[0].other) == dict(zip(tiles, embeddings, strict=True))


def test_a_suffix_of_one_artifact_can_be_taken_away():
    def suffixes(tiles: list[str], embeddings: list[str]) -> set[str]:
        return {one.suffix for one in spellings(tiles, embeddings) if len(one.other) == len(tiles)}

    suffixed = [f"{name}.svs" for name in NAMES]
    assert suffixes(NAMES, suffixed) == suffixes(suffixed, NAMES) == {".svs", ""}
    assert suffixes(NAMES, [f"mou_{name}" for name in NAMES]) == {""}


def test_names_that_both_have_are_left_out():
    assert list(spellings(["a", "b"], ["b", "a", "c"])) == []


def test_a_name_that_several_may_stand_for_has_none():
    assert all("a" not in one.other for one in spellings(["a"], ["A.svs", "A.tif"]))


TEXTS = st.sets(st.text("aAb0./ ", min_size=1, max_size=4), max_size=8)


@given(TEXTS, TEXTS)
def test_pairs_are_of_names_that_only_one_side_has(tiles: set[str], embeddings: set[str]):
    for one in spellings(tiles, embeddings):
        assert set(one.other) <= tiles - embeddings
        assert set(one.other.values()) <= embeddings - tiles
