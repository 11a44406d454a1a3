"""Parquet tables as some benchmarks are hosted: rows of plain values, and pictures inside (`image: {bytes, path}`).

* The quick check reads the other columns and the footer only; picture bytes are decompressed when a picture is read.
* A compressed column has no byte offsets, so one row costs its whole row group. The last two groups stay in memory,
  and reading in canonical order decompresses each group once per process.
* pyarrow is imported when a table is opened, and never through `read_table`, which would import pandas.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mtv.errors import DataError
from mtv.eval.datasets.base import FileRef

_BYTES = "bytes"
_DAMAGED = "The file is damaged or cut; copy it again."
_LOCK = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class ParquetPicture(FileRef):
    """The bytes of one picture in a Parquet column; its `name` is `table.parquet/row`."""

    column: str
    """Column of structs with a field `bytes`."""
    group: int
    """Row group."""
    row: int
    """Row inside the group."""

    def read(self) -> bytes:
        """The bytes.

        Raises:
            DataError: the table cannot be read, or the cell is empty; names it.
        """
        try:
            # many threads ask for one group at once: one of them decompresses it
            with _LOCK:
                group = _row_group(self.path, self.column, self.group, self.path.stat().st_mtime_ns)
            cell = group[self.row].as_py()
        except (OSError, ValueError, IndexError) as e:  # pyarrow's errors are ValueErrors
            raise DataError(f"{self.name}: cannot be read ({e})", _DAMAGED) from e
        content = cell and cell[_BYTES]
        if not content:
            raise DataError(f"{self.name}: no bytes in column {self.column}", "Use the original table.")
        return bytes(content)


def table_columns(path: Path) -> list[str]:
    """Names of the columns.

    Raises:
        DataError: no Parquet file; names it.
    """
    with _open(path) as table:
        return list(table.schema_arrow.names)


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Some columns of a table as one dict per row, in file order.

    Raises:
        DataError: no Parquet file, or a column is absent; names them.
    """
    with _open(path) as table:
        absent = [c for c in columns if c not in table.schema_arrow.names]
        if absent:
            raise DataError(f"{path.name}: no column {', '.join(absent)}", "Use the original table.")
        try:
            rows: list[dict[str, Any]] = table.read(columns=list(columns)).to_pylist()
        except (OSError, ValueError) as e:
            raise DataError(f"{path.name}: cannot be read ({e})", _DAMAGED) from e
    return rows


def pictures(path: Path, name: str, column: str = "image") -> list[ParquetPicture]:
    """References to the pictures of a table, one per row, from the footer alone.

    Args:
        path: the table.
        name: what the table is called in messages, relative to the data set's root.
        column: the column of pictures.

    Raises:
        DataError: the column is absent or holds no bytes; names the table.
    """
    import pyarrow as pa

    with _open(path) as table:
        kind = table.schema_arrow.field(column).type if column in table.schema_arrow.names else None
        if kind is None or not pa.types.is_struct(kind) or kind.get_field_index(_BYTES) < 0:
            raise DataError(f"{name}: no column {column} of pictures ({kind})", "Use the original table.")
        sizes = [table.metadata.row_group(g).num_rows for g in range(table.num_row_groups)]
    places = [(g, r) for g, size in enumerate(sizes) for r in range(size)]
    return [
        ParquetPicture(path=path, name=f"{name}/{i}", column=column, group=g, row=r) for i, (g, r) in enumerate(places)
    ]


def _open(path: Path) -> Any:
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(path)
    except (OSError, ValueError) as e:
        raise DataError(f"{path.name}: no readable Parquet file ({e})", _DAMAGED) from e


@lru_cache(maxsize=2)
def _row_group(path: Path, column: str, group: int, changed_ns: int) -> Any:
    """Pictures of one row group as a chunked array of structs; `changed_ns` drops what a changed file held before."""
    with _open(path) as table:
        return table.read_row_group(group, columns=[f"{column}.{_BYTES}"])[column]
