"""Small tables for the terminal."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from featurestore.printing import Console, printable

SHOWN = 200  # rows that a table in the terminal shows
WORST = 10  # slides that lack embeddings
LEAST = 12  # characters of a column whose cells are broken


def print_table(
    answer: pa.Table, console: Console, title: str | None = None, limit: int = SHOWN
) -> None:
    """Print an Arrow table, at most ``limit`` rows of it, and say what was left out."""
    cells = [[_cell(v) for v in row.values()] for row in answer.slice(0, limit).to_pylist()]
    widths = [
        max(map(len, column)) for column in zip(answer.column_names, *cells, strict=True)
    ]  # fmt: skip
    unwrapped = _whole(widths, console.width)
    table = Table(title=title, title_justify="left")
    for place, field in enumerate(answer.schema):
        number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        table.add_column(
            field.name,
            justify="right" if number else "left",
            overflow="fold",
            no_wrap=place in unwrapped,
        )
    for row in cells:
        table.add_row(*row)
    console.print(table)
    if not len(answer):
        console.print("no rows")
    if len(answer) > limit:
        console.print(f"... and {len(answer) - limit:,} more rows (--format csv prints all)")


def _whole(widths: list[int], room: int) -> set[int]:
    """Return the columns kept on one line: the narrowest, while the rest has room to be broken."""
    kept: set[int] = set()
    room -= 3 * len(widths) + 1
    places = sorted(range(len(widths)), key=widths.__getitem__)
    for number, place in enumerate(places):
        rest = sum(min(widths[other], LEAST) for other in places[number + 1 :])
        if widths[place] + rest > room:
            break
        kept.add(place)
        room -= widths[place]
    return kept


def print_tables(tables: Iterable[tuple[str, pa.Table]], console: Console) -> None:
    """Print several tables, each below its title."""
    for title, table in tables:
        print_table(table, console, title)


def print_funnel(rows: list[dict[str, Any]], console: Console, title: str = "tiles") -> None:
    """Print a funnel: reason, number of tiles, share of the input, in step order."""
    total = max(rows[0]["tiles"], 1)
    table = Table(title=title, title_justify="left")
    for name in ("reason", "tiles", "share"):
        table.add_column(name, justify="left" if name == "reason" else "right")
    for row in rows:
        table.add_row(row["reason"], f"{row['tiles']:,}", f"{row['tiles'] / total:.1%}")
    console.print(table)


def print_matches(matches: pa.Table, console: Console, title: str) -> None:
    """Print the slides of which tiles have no embedding, the worst first, if there is any."""
    poor = matches.filter(pc.greater(matches["missing"], 0))
    if len(poor):
        named = poor.slice(0, WORST).rename_columns(["slide_id", "tiles", "without an embedding"])
        print_table(named, console, title)
    if len(poor) > WORST:
        console.print(f"... and {len(poor) - WORST:,} more slides")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.{6 if abs(value) >= 1 else 4}g}"
    return "" if value is None else printable(str(value))
