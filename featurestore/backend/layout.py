"""How the columns of an artifact lie in its files."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Layout:
    """What a reader takes out of Parquet files, beside the columns that it is told of.

    Parameters
    ----------
    columns
        Those to read.
    partitions
        Columns that folders give: the text of each file, in the order of the files.
    normal
        Columns of text to bring to Unicode's normal form C.
    written
        Names of columns in the files, where they differ.
    suffixes
        What is taken away from the end of texts, by column.
    """

    columns: Sequence[str]
    partitions: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    normal: Sequence[str] = ()
    written: Mapping[str, str] = field(default_factory=dict)
    suffixes: Mapping[str, str] = field(default_factory=dict)

    def pattern(self, column: str) -> str | None:
        """Return the regular expression of a column's suffix, as RE2 and Java take it."""
        return re.escape(self.suffixes[column]) + r"\z" if column in self.suffixes else None
