"""Columns come back as they were written, and pandas stays out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtv.columns import read_columns


@pytest.mark.parametrize("n", [0, 1, 5, 70_000])
def test_columns_come_back_with_their_types(n: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = {
        "sample_id": np.array([f"é{k}" for k in range(n)], dtype=object),
        "rank": rng.integers(-5, 5, n),
        "small": rng.integers(0, 5, n).astype(np.uint8),
        "error": rng.normal(size=n).astype(np.float32),
        "score": rng.normal(size=n),
        "hit": rng.random(n) < 0.5,
    }
    columns = {k: pa.array(v, pa.string() if k == "sample_id" else None) for k, v in table.items()}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=1_000)
    got = read_columns(tmp_path / "t.parquet")
    assert list(got) == list(table)
    for name, values in table.items():
        assert got[name].dtype == values.dtype, name
        np.testing.assert_array_equal(got[name], values)
        got[name][:1] = values[:1]


def test_missing_numbers_become_nan(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"i": [1, None], "x": [None, 2.5], "b": [True, None], "s": ["a", None]}), tmp_path / "t.parquet"
    )
    got = read_columns(tmp_path / "t.parquet")
    np.testing.assert_array_equal(got["i"], [1, np.nan])
    np.testing.assert_array_equal(got["x"], [np.nan, 2.5])
    np.testing.assert_array_equal(got["b"], [1, np.nan])
    assert got["s"].tolist() == ["a", None]


def test_reading_imports_no_pandas(tmp_path: Path) -> None:
    pq.write_table(pa.table({"i": [1, 2], "s": ["a", "b"], "b": [True, False]}), tmp_path / "t.parquet")
    code = (
        "import sys; from pathlib import Path; from mtv.columns import read_columns\n"
        f"read_columns(Path({str(tmp_path / 't.parquet')!r})); print('pandas' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
