"""Expressions of `where`, and tiles that tell apart what they mean."""

import pyarrow as pa

TILES = pa.table(
    {
        "slide_id": ["a", "a", "b", "b", "c", "d"],
        "x": [0, 1, 2, 3, 4, 5],
        "tissue_prop": [0.1, 0.5, 0.9, 0.5, 0.0, 1.0],
        "share": pa.array([0.7, 0.2, 0.7, 0.1, 0.0, 0.7], pa.float32()),
        "Organ": ["colon", "Colon ", None, "it's", "lung", "100%"],
        "kept": [True, False, True, None, False, True],
        'a "b"': [1, 2, 3, 4, 5, 6],
    }
)
EXPRESSIONS = [
    "organ = 'colon' and tissue_prop >= 0.5",
    "organ = 'colon' or tissue_prop >= .5",
    "not organ = 'colon'",
    "organ is null or organ <> 'lung'",
    "organ is not null and not (x > 2)",
    "lower(trim(organ)) = 'colon'",
    "organ in ('colon', 'it''s', 'none')",
    "x not in (1, 2, 3)",
    "x between 1 and 3 and x != 2",
    "organ like '%o%n%' or organ ilike 'C%'",
    "organ like '100%'",
    "length(organ) > 4 and starts_with(upper(organ), 'CO')",
    "contains(organ, 'un')",
    "kept",
    "kept = true or kept is null",
    "not kept",
    "-x + 2 * x - 1 > 6 / 2",
    "abs(x - 3) <= 1",
    "coalesce(organ, 'none') = 'none'",
    '"a ""b""" >= 5',
    "2 < x",
    "X < 2",
    "true",
    "false",
]
