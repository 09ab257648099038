"""``featurestore check``: all that is wrong with the artifacts."""

import argparse

import pyarrow as pa

from featurestore.console.settings import open_store
from featurestore.console.tables import print_findings, print_matches
from featurestore.printing import Console, counted, say
from featurestore.snapshots.leakage import refused
from featurestore.snapshots.verify import damages
from featurestore.validation import joins, violations


def run(options: argparse.Namespace) -> int:
    """Print all that is wrong; return 2 if anything is an error."""
    store = open_store(options)
    joined = list(joins(store))
    listed = violations(store, not options.quick, joined)
    table = pa.concat_tables([refused(store), listed])
    if options.verify:
        table = pa.concat_tables([table, damages(store)])
    errors = table["severity"].to_pylist().count("error")
    print_findings(table, Console())
    for name, matches, _ in joined:
        print_matches(matches, Console(), f"surviving {name.replace('_', ' ')} by slide")
    warnings = counted(len(table) - errors, "warning")
    say(f"{counted(errors, 'error')}, {warnings}")
    return 2 if errors else 0
