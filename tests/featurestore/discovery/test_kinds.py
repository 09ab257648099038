"""What a file is by its columns, and which of them stand for those of the contract."""

import pyarrow as pa
import pytest

from featurestore.discovery.kinds import columns_of, joined_columns, kinds_of, spelled
from featurestore.errors import ConfigError

FLOATS = pa.list_(pa.float32())
KEYS = {"slide_id": pa.string(), "x": pa.int64(), "y": pa.int64()}


@pytest.mark.parametrize(
    ("columns", "kinds"),
    [
        (KEYS | {"roi_coverage_Fat": pa.float64()}, {"tiles"}),
        (KEYS | {"embedding": FLOATS}, {"embeddings"}),
        (KEYS | {"features": pa.list_(pa.float16(), 8)}, {"embeddings"}),
        (KEYS | {"uni": pa.large_list(pa.float64())}, {"embeddings"}),
        (KEYS | {"embedding": pa.list_(pa.int8())}, {"embeddings"}),
        (KEYS | {"neighbours": pa.list_(pa.int8())}, {"other"}),
        (KEYS | {"roi_coverage_Fat": pa.float64(), "embedding": FLOATS}, {"tiles", "embeddings"}),
        ({"id": pa.string(), "mpp_x": pa.float64()}, {"slides"}),
        ({"id": pa.string(), "name": pa.string()}, {"other"}),
        (KEYS, {"other"}),
    ],
)
def test_columns_say_what_a_file_is(columns: dict[str, pa.DataType], kinds: set[str]):
    assert kinds_of(pa.schema(columns)) == kinds


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (KEYS | {"embedding": FLOATS, "slide": pa.string()}, {}),
        ({"Slide": pa.string(), "X": pa.int64(), "coord_y": pa.int32(), "uni": FLOATS},
         {"slide_id": ["Slide"], "x": ["X"], "y": ["coord_y"], "embedding": ["uni"]}),
        ({"case": pa.dictionary(pa.int8(), pa.string()), "wsi": pa.large_string(), "left":
          pa.int64(), "top": pa.float64(), "a": FLOATS, "b": FLOATS},
         {"slide_id": ["wsi", "case"], "x": ["left"], "embedding": ["a", "b"]}),
    ],
)  # fmt: skip
def test_columns_of_other_names_are_guessed_by_name_and_type(
    columns: dict[str, pa.DataType], expected: dict[str, list[str]]
):
    """The usual names need none; a coordinate is a whole number, a slide is text."""
    assert columns_of(pa.schema(columns), (), "embeddings") == expected


def test_what_folders_say_is_a_column():
    assert columns_of(pa.schema({"x": pa.int64(), "y": pa.int64()}), ["slide"], "tiles") == {
        "slide_id": ["slide"]
    }


def test_one_column_has_one_name_in_all_artifacts():
    assert joined_columns({"tiles": {"x": "left"}, "embeddings": {"x": "left", "y": "top"}}) == {
        "x": "left", "y": "top",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="x has two names"):
        joined_columns({"tiles": {"x": "left"}, "embeddings": {"x": "x0"}})


def test_of_many_names_the_first_are_told():
    assert spelled(["a", "b"]) == "a, b"
    assert spelled(list("abcdefgh"), 2) == "a, b, and 6 more"
