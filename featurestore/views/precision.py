"""At which precision coverages are compared: a threshold of 0.7 is what 0.7 is in their column.

Shares are written as decimals and stored as binary numbers, each type its own nearest one. See
docs/decisions/022-coverage-precision.md.
"""

import struct
from collections.abc import Iterable, Sequence

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

EPSILONS = {"float32": 2.0**-23, "float64": 2.0**-52}
PLACES = 18  # of a decimal that a double is made of; engines divide by ten to the power of it
RULE = (
    "a coverage reaches a threshold that is rounded to the type of its column; the sum of a tile's "
    "coverages reaches tissue_prop_min, and that of merged classes their threshold, within one ulp "
    "of the coarsest of these types and one of a double for each class"
)


def precision(*kinds: dt.DataType) -> str:
    """Return ``float32`` if a column of some types is one of single floats, else ``float64``."""
    return "float32" if any(kind.is_float32() for kind in kinds) else "float64"


def exact(column: ir.NumericValue) -> ir.FloatingValue:
    """Return a column's values as doubles, each that of the decimal or number stored."""
    kind = column.type()
    if kind.is_decimal() and (kind.scale or 0) > PLACES:
        column = column.cast(dt.Decimal(38, PLACES))
    return column.cast("float64")


def least(threshold: float, kind: dt.DataType) -> float:
    """Return the least coverage in a column of some type that reaches a threshold."""
    if precision(kind) == "float64":
        return float(threshold)
    (single,) = struct.unpack("f", struct.pack("f", threshold))
    return float(single)


def reached_at(threshold: float, kinds: Sequence[dt.DataType]) -> float:
    """Return the least coverage that reaches a threshold: of one column, or the sum of several."""
    return least(threshold, kinds[0]) if len(kinds) == 1 else floor(threshold, kinds)


def floor(tissue_prop_min: float, kinds: Iterable[dt.DataType]) -> float:
    """Return the least sum of coverages, one in a column of each type, that reaches a bound.

    Each coverage is off by half an ulp of its type and each addition by half of one of a double:
    decimals that add up to the bound always reach it.
    """
    epsilons = [EPSILONS[precision(kind)] for kind in kinds]
    return float(tissue_prop_min) * (1 - max(epsilons) - len(epsilons) * EPSILONS["float64"])


def steps_reached(coverages: ir.Table, steps: int) -> ir.IntegerValue:
    """Return the largest n for which a coverage reaches the threshold n / steps.

    Parameters
    ----------
    coverages
        With ``coverage`` and its ``precision``.
    """
    nearest = (coverages.coverage * steps).round().cast("int64")
    at = at_precision(nearest / steps, coverages.precision)
    return nearest - (coverages.coverage < at).cast("int64")


def at_precision(thresholds: ir.FloatingValue, precisions: ir.StringValue) -> ir.FloatingValue:
    """Return thresholds, each rounded to a precision, as doubles."""
    single = thresholds.cast("float32").cast("float64")
    return ibis.ifelse(precisions == "float32", single, thresholds)
