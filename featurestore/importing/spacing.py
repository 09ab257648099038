"""Micrometres a pixel, as a user says them: one number, or a table by slide."""

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from featurestore.errors import ArtifactError


def spacing(text: str) -> float | dict[str, float]:
    """Return micrometres a pixel at level 0: a number, or those of a table by slide.

    Parameters
    ----------
    text
        A number; or a CSV or Parquet file with ``id`` and ``mpp_x``.

    Raises
    ------
    ArtifactError
        It is neither, or not positive.
    """
    try:
        values: float | dict[str, float] = float(text)
    except ValueError:
        values = _spacings(Path(text))
    for value in values.values() if isinstance(values, dict) else [values]:
        if not 0 < (value or 0) < float("inf"):
            raise ArtifactError(
                f"--mpp {text} is not how many micrometres a pixel has", found=str(value),
                fix="write a number above 0, for example --mpp 0.25",
            )  # fmt: skip
    return values


def _spacings(file: Path) -> dict[str, float]:
    try:
        if file.suffix == ".parquet":
            table = pq.read_table(file, columns=["id", "mpp_x"])
        else:
            text = pyarrow.csv.ConvertOptions(column_types={"id": pa.string()})  # 007 is a name
            table = pyarrow.csv.read_csv(file, convert_options=text).select(["id", "mpp_x"])
        names = table["id"].cast(pa.string()).to_pylist()
        return dict(zip(names, table["mpp_x"].cast(pa.float64()).to_pylist(), strict=True))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ArtifactError(
            f"--mpp {file} is neither a number nor a table of slides",
            found=str(error).splitlines()[0],
            fix="write --mpp 0.25, or a CSV or Parquet file with the columns id and mpp_x",
        ) from error
