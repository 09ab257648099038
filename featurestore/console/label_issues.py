"""``featurestore label-issues``: labels that a run doubts, for a person to review."""

import argparse

from featurestore.errors import ConfigError, library_needed
from featurestore.printing import Console, say

SHOWN = 10  # rows in the terminal


def run(options: argparse.Namespace) -> None:
    """Write the list and the boxes."""
    runs = [options.runs] if isinstance(options.runs, str) else options.runs
    if len(runs) != 1 or options.limit < 1:
        raise ConfigError(
            "`featurestore label-issues` lists some labels that one run doubts",
            found=f"runs: {', '.join(runs) or 'none'}; --limit {options.limit}",
            fix="name one, for example runs=RUN, and a limit of 1 or more",
        )
    with library_needed("`featurestore label-issues` needs shapely", "annotations"):
        from featurestore.annotations import grid, review
    from featurestore.console.settings import open_store
    from featurestore.console.tables import print_table
    from featurestore.contract.predictions import doubted

    store = open_store(options)
    issues = doubted(store.view("predictions"), options.limit)
    slides = grid.rows_by_slide(store.view("slides")) if store.spec.slides else {}
    layout = grid.GridOptions(options.tile_size, downsample=options.downsample)
    review.write(issues, slides, layout, options.to)
    print_table(issues.slice(0, SHOWN), Console())
    number = len(set(issues["slide_id"].to_pylist()))
    say(f"{options.to}: {len(issues):,} tiles of {number:,} slides, the most doubtful first")
