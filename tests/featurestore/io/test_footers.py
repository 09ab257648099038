"""A footer is read alone, and is what pyarrow reads."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.io.parquet import read_footer

TABLE = pa.table({"x": list(range(5000)), "embedding": [[float(n)] * 4 for n in range(5000)]})


@pytest.mark.parametrize("rows", [0, 1, 5000])
def test_a_footer_is_what_pyarrow_reads(rows: int, tmp_path: Path):
    file = tmp_path / "a.parquet"
    pq.write_table(
        TABLE.slice(0, rows).replace_schema_metadata({"k": "v"}), file, row_group_size=99
    )
    assert read_footer(file).to_dict() == pq.read_metadata(file).to_dict()
    assert read_footer(file).schema.to_arrow_schema() == pq.read_schema(file)
    assert read_footer(file).metadata[b"k"] == b"v"


def test_few_bytes_are_read_of_a_large_file(tmp_path: Path):
    file = tmp_path / "a.parquet"
    pq.write_table(TABLE, file)

    def asked() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    footer, start = pq.read_metadata(file).serialized_size, asked()
    before = asked() - start  # to ask costs something as well
    start = asked()
    read_footer(file)
    assert asked() - start < footer + before + 16_384


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"x" * 100, b"\xff\xff\xff\x7fPAR1", b"PAR1" * 3]
)
def test_what_is_not_whole_is_refused_as_by_pyarrow(content: bytes, tmp_path: Path):
    file = tmp_path / "a.parquet"
    file.write_bytes(content)
    errors = (OSError, pa.ArrowException)
    with pytest.raises(errors) as theirs:
        pq.read_metadata(file)
    with pytest.raises(errors) as ours:
        read_footer(file)
    assert type(ours.value) is type(theirs.value)
