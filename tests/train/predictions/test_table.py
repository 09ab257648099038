"""Tables of predictions, and the numbers of slides and of other clusters."""

import numpy as np
import pyarrow as pa

from train.predictions.table import Predictions, encode_clusters, lone_slides


def test_predictions_are_in_the_order_of_keys():
    numbers = np.arange(23)
    keys = pa.table({
        "slide_id": [f"s{n // 4}" for n in numbers], "x": numbers, "y": numbers * 0,
        "target": pa.array([None if n == 20 else int(n) % 3 for n in numbers], pa.int64()),
        "split": ["train" if n < 18 else "validation" for n in numbers], "row": 22 - numbers,
    })  # fmt: skip
    probabilities = np.stack([numbers, 10 - numbers], axis=1).astype(np.float32)
    predictions = Predictions.of(keys, probabilities, ["a", "b;"])
    assert not predictions.labelled
    table = predictions.select(numbers < 18).table()
    assert table.column_names == ["slide_id", "x", "y", "target", "pred", "prob_a", "prob_b;"]
    assert table["x"].to_pylist() == list(range(18))
    assert table["prob_a"].to_pylist() == list(range(18))
    assert table["pred"].to_pylist() == [1] * 5 + [1 if 10 - n > n else 0 for n in range(5, 18)]


def test_a_unit_may_be_called_none_or_nothing():
    """Slides without a patient stand for themselves; those of a patient of any name are one."""
    keys = pa.table({
        "slide_id": ["a", "b", "c", "d", "e", "f"],
        "patient_id": ["none", "none", "", "", None, None],
    })  # fmt: skip
    number, units = encode_clusters(keys, "patient_id")
    assert (units, number[0], number[2]) == (4, number[1], number[3])
    assert lone_slides(keys, "patient_id") == 2
    coded = keys.set_column(1, "patient_id", keys["patient_id"].dictionary_encode())
    assert encode_clusters(coded, "patient_id")[0].tolist() == number.tolist()


def test_of_equally_sure_tiles_the_keys_decide_whatever_their_order():
    """As where float32 probabilities are all 1."""
    sure = [1.0, 0.5, 1.0, 1.0, 0.75, 1.0]
    table = pa.table({
        "slide_id": ["b", "a", "a", "a", "c", "a"],
        "x": [0, 0, 3, 2, 0, 2], "y": [0, 0, 0, 9, 0, 1],
        "target": [0] * 6, "prob_a": sure, "prob_b": [1 - each for each in sure],
    })  # fmt: skip
    for order in ([0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 4, 2]):
        predictions = Predictions.from_table(table.take(order), ["a", "b"])
        mask = predictions.confidence > 0.5
        for direction, expected in (
            ("descending", [5, 3, 2, 0, 4]),
            ("ascending", [4, 5, 3, 2, 0]),
        ):
            ordered = predictions.by_confidence(mask, direction)
            assert [order[row] for row in ordered] == expected
