"""Folds by a hash of the key: Python's own MD5 says the same."""

import hashlib

import ibis
import pytest

from featurestore.views.folds import hashed_fold_view


@pytest.mark.parametrize(("k", "seed"), [(2, 0), (5, 7), (1000, 4294967295)])
def test_a_fold_is_the_md5_of_the_key_modulo_k(k: int, seed: int):
    slides = ["a", "Öl/1", "a"] * 100
    keys = {"slide_id": slides, "x": list(range(300)), "y": [-n for n in range(300)]}
    tiles = ibis.memtable(keys | {"label": ["Fat"] * 300, "dropped_by": [None] * 299 + ["tissue"]})
    rows = hashed_fold_view(tiles, k, seed).order_by("x").to_pyarrow()
    digests = [
        hashlib.md5(f"{seed}/{x}/{y}/{slide}".encode()).hexdigest()
        for slide, x, y in zip(*keys.values(), strict=True)
    ]
    expected = [int(digest[:7], 16) % k for digest in digests]
    assert rows["fold"].to_pylist() == [*expected[:-1], None]
    dropped = hashed_fold_view(tiles, k, seed, ["Fat"]).to_pyarrow()["dropped_by"].to_pylist()
    assert sorted(dropped) == ["rare_class"] * 299 + ["tissue"]
