"""Parquet columns as numpy arrays without pandas.

`pyarrow.parquet.read_table` and `to_numpy` import pandas where it is installed, and `cast` imports `pyarrow.compute`:
each costs more time than all of `mtv-eval compare`. The reader class, DLPack, buffers and plain lists do not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """All columns of a Parquet file; text as object arrays of str, a missing number as NaN.

    Raises:
        OSError: the file is missing.
        pyarrow.ArrowInvalid: it is no Parquet file.
    """
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        table = file.read()
    return {name: _to_numpy(table[name].combine_chunks()) for name in table.column_names}


def _to_numpy(column: Any) -> np.ndarray:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_boolean(kind) and not column.null_count:
        bits = np.frombuffer(column.buffers()[1] or b"", dtype=np.uint8)
        return np.unpackbits(bits, bitorder="little")[column.offset : column.offset + len(column)].astype(bool)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        out = np.empty(len(column), dtype=object)
        out[:] = column.to_pylist()
        return out
    if column.null_count:
        from pyarrow import compute

        column = compute.fill_null(column.cast(pa.float64()), float("nan"))
    # DLPack arrays are read-only views of memory that pyarrow owns; a copy costs little and can be written to.
    return np.from_dlpack(column).copy() if len(column) else np.empty(0, dtype=kind.to_pandas_dtype())
