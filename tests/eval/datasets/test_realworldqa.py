"""RealWorldQA reader: tables as they are hosted, in the places and under the names that people have."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mtv.errors import UsageError
from mtv.eval.datasets.realworldqa import inspect
from mtv.eval.datasets.registry import check_dataset

ANSWERS = ("A", "Yes", "2", "To the left", "D")


def webp(seed: int) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "WEBP", lossless=True)
    return out.getvalue()


def write(
    folder: Path, sizes: Sequence[int], *, split: str = "test", changes: dict[int, dict[str, str]] | None = None
) -> Path:
    """`<split>-0000k-of-0000n.parquet` with so many rows each, in row groups of three; `changes` by row number."""
    folder.mkdir(parents=True, exist_ok=True)
    start = 0
    for k, size in enumerate(sizes):
        rows = [
            {
                "image": {"bytes": webp(i), "path": f"{i}.webp"},
                "question": f"What is {i}?\nPlease answer directly with a single word or number.",
                "answer": ANSWERS[i % len(ANSWERS)],
                **((changes or {}).get(i, {})),
            }
            for i in range(start, start + size)
        ]
        pq.write_table(
            pa.Table.from_pylist(rows), folder / f"{split}-{k:05d}-of-{len(sizes):05d}.parquet", row_group_size=3
        )
        start += size
    return folder


def test_items_over_two_tables(tmp_path: Path) -> None:
    write(tmp_path / "RealworldQA" / "data", (7, 5))
    report, data = inspect(tmp_path)
    assert data is not None
    assert (report.verdict, report.label) == ("ok-but", "subset (12 of 765)")
    assert report.root == tmp_path / "RealworldQA"
    assert report.layout == "data/test-00000-of-00002.parquet, data/test-00001-of-00002.parquet"
    assert [q.id for q in data.questions] == [str(i) for i in range(12)]
    assert [q.label for q in data.questions] == [ANSWERS[i % 5] for i in range(12)]
    assert all(q.choices == () and q.answer is None for q in data.questions)
    assert data.questions[9].question == "What is 9?\nPlease answer directly with a single word or number."
    for i in (11, 0, 7, 6, 3):
        assert data.images[str(i)].read() == webp(i)
    assert data.images["8"].name == "data/test-00001-of-00002.parquet/1"


def test_the_full_set_is_ok_in_every_place(tmp_path: Path) -> None:
    folder = write(tmp_path / "a" / "realworldqa" / "data", (383, 382))
    reports = [inspect(p)[0] for p in (tmp_path / "a", folder.parent, folder)]
    reports.append(inspect(write(tmp_path / "b" / "RealWorldQA", (400, 365), split="test_0412").parent)[0])
    assert {r.verdict for r in reports} == {"ok"}
    assert len({r.fingerprint for r in reports}) == 1


def test_full_check_decodes_every_picture(tmp_path: Path) -> None:
    write(tmp_path / "realworldqa", (4,))
    assert check_dataset("realworldqa", tmp_path, full=True, workers=1).verdict == "ok-but"
    write(tmp_path / "realworldqa", (4,), changes={2: {"image": {"bytes": webp(2)[:40], "path": "2.webp"}}})  # type: ignore[dict-item]
    report = check_dataset("realworldqa", tmp_path, full=True, workers=1)
    assert report.verdict == "wrong"
    assert "test-00000-of-00001.parquet/2" in report.problems[0]


def test_tables_of_other_sets_are_passed_over(tmp_path: Path) -> None:
    """Many hosted sets have files of these names: without the folder's name they are not meant."""
    write(tmp_path / "othervqa" / "data", (3,))
    assert inspect(tmp_path)[0].verdict == "missing"
    other = pa.table({"image": [{"bytes": b"x", "path": "x"}], "question": ["?"], "answer": ["A"], "choices": [["x"]]})
    (tmp_path / "cv").mkdir()
    pq.write_table(other, tmp_path / "cv" / "test-00000-of-00001.parquet")
    assert inspect(tmp_path / "cv")[0].verdict == "missing"


def test_wrong_tables_are_refused_and_named(tmp_path: Path) -> None:
    root = write(tmp_path / "realworldqa", (3, 3))
    (root / "test-00001-of-00002.parquet").unlink()
    assert inspect(tmp_path)[0].problems == ("1 tables are there; their names say 2",)
    write(root, (3, 3), changes={4: {"answer": " "}, 5: {"question": ""}})
    assert inspect(tmp_path)[0].problems == (
        "test-00001-of-00002.parquet row 1: answer is ' ', expected text",
        "test-00001-of-00002.parquet row 2: question is '', expected text",
    )
    table = root / "test-00000-of-00002.parquet"
    table.write_bytes(table.read_bytes()[:100])
    report = inspect(tmp_path)[0]
    assert report.verdict == "wrong"
    assert "test-00000-of-00002.parquet: no readable Parquet file" in report.problems[0]
    with pytest.raises(UsageError, match="unknown realworldqa split"):
        inspect(tmp_path, split="train")


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "realworldqa", (1,))
    path = tmp_path / "realworldqa" / "test-00000-of-00001.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    assert inspect(tmp_path)[0].problems == ("the tables hold no row",)
