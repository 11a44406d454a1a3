"""MMVP reader: trees in the true layout, options with brackets in them, and pairs that do not add up."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mtv.errors import UsageError
from mtv.eval.datasets.mmvp import KNOWN, inspect, split_options
from mtv.eval.datasets.registry import check_dataset

Rows = list[list[str]]


def make_rows(n: int = 8, *, real: bool = True) -> Rows:
    """Index, question, options, answer; equal questions and opposite answers inside a pair."""
    rows = []
    for index in range(1, n + 1):
        question = f"Is thing {(index - 1) // 2} left, or right?"
        if real:
            question = KNOWN.get(str(index), question)
        answer = "(a)" if (index % 2 == 1) == ((index - 1) // 2 % 2 == 0) else "(b)"
        rows.append([str(index), question, '(a) To the "left", or so (b) Right', answer])
    return rows


def write(root: Path, rows: Rows, *, header: str = "Index", encoding: str = "utf-8", newline: str = "\n") -> Path:
    """`Questions.csv` and `MMVP Images/N.jpg`."""
    (root / "MMVP Images").mkdir(parents=True, exist_ok=True)
    with (root / "Questions.csv").open("w", encoding=encoding, newline="") as f:
        writer = csv.writer(f, lineterminator=newline)
        writer.writerow([header, "Question", "Options", "Correct Answer"])
        writer.writerows(rows)
    for row in rows:
        Image.new("RGB", (8, 8), (int(row[0]) % 256 if row[0].isdecimal() else 0, 20, 30)).save(
            root / "MMVP Images" / f"{row[0].strip().split('.')[0]}.jpg"
        )
    return root


def test_items_and_pairs(tmp_path: Path) -> None:
    rows = make_rows()
    report, data = inspect(write(tmp_path / "MMVP", rows).parent)
    assert data is not None
    assert (report.verdict, report.label) == ("ok-but", "subset (8 of 300)")
    assert report.found == {"questions": 8, "pairs": 4, "images": 8}
    assert [q.id for q in data.questions] == [str(i) for i in range(1, 9)]
    assert [q.pair for q in data.questions] == ["0", "0", "1", "1", "2", "2", "3", "3"]
    assert [f"({q.label.lower()})" for q in data.questions] == [r[3] for r in rows]
    assert {q.choices for q in data.questions} == {('To the "left", or so', "Right")}
    assert data.questions[2].question == "Is thing 1 left, or right?"
    assert list(data.images) == [q.image for q in data.questions]
    assert data.images["5"].path == tmp_path / "MMVP" / "MMVP Images" / "5.jpg"
    assert data.images["5"].name == "MMVP Images/5.jpg"


@pytest.mark.parametrize("header", ["Index", "lndex", "", "Question ID"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_header_is_never_read_by_name(tmp_path: Path, header: str, encoding: str, newline: str) -> None:
    plain = inspect(write(tmp_path / "a", make_rows()))[0]
    other = inspect(write(tmp_path / "b", make_rows(), header=header, encoding=encoding, newline=newline))[0]
    assert other.fingerprint == plain.fingerprint
    assert other.found == plain.found


def test_the_full_set_is_ok(tmp_path: Path) -> None:
    report, data = inspect(write(tmp_path, make_rows(300)))
    assert data is not None
    assert (report.verdict, report.label, report.problems) == ("ok", "", ())
    assert len({q.pair for q in data.questions}) == 150
    _, shuffled = inspect(write(tmp_path, [*make_rows(300)[150:], *make_rows(300)[:150]]))
    assert shuffled is not None
    assert shuffled.questions == data.questions


@pytest.mark.parametrize("n", [8, 300])
def test_other_questions_are_never_called_mmvp(tmp_path: Path, n: int) -> None:
    """300 questions of the miniature world are not MMVP either."""
    report, data = inspect(write(tmp_path, make_rows(n, real=False)))
    assert data is not None
    assert (report.verdict, report.label) == ("ok-but", f"not MMVP ({n} questions)")
    assert any("question 1 of MMVP reads otherwise" in p for p in report.problems)


def test_quotation_marks_do_not_matter_for_the_name(tmp_path: Path) -> None:
    rows = make_rows(300)
    rows[0][1] = rows[0][1].replace("'", "\u2019").upper() + "  "
    assert inspect(write(tmp_path, rows))[0].verdict == "ok"


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("(a) 2 (two) (b) 3", ["2 (two)", "3"]),
        ("(a) Open (b) Closed", ["Open", "Closed"]),
        (" (A) Open\n(B)Closed ", ["Open", "Closed"]),
        ("(a) Plan (b) or (c)", ["Plan", "or", ""]),
        ("(a) vitamin (c) (b) none", ["vitamin (c)", "none"]),
        ("(a) A (a) (b) x (b)", ["A (a)", "x (b)"]),
        ("Open or closed", []),
        ("(b) x (a) y", []),
        ("door (a) x (b) y", []),
    ],
)
def test_t16_options(text: str, options: list[str]) -> None:
    assert split_options(text) == options


WORDS = st.text("xyz ()123", min_size=1, max_size=12).map(str.strip).filter(bool)


@given(st.lists(WORDS, min_size=1, max_size=5))
def test_options_round_trip(options: list[str]) -> None:
    """Brackets and digits inside an option never end it; only the next letter does."""
    text = " ".join(f"({chr(97 + i)}) {o}" for i, o in enumerate(options))
    assert split_options(text) == options


def set_cell(index: int, cell: int, value: str) -> Callable[[Rows], Rows]:
    def change(rows: Rows) -> Rows:
        rows[index - 1][cell] = value
        return rows

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_cell(3, 3, "(c)"), "Questions.csv line 4: answer '(c)' is beyond the 2 choices"),
        (set_cell(3, 3, "Right"), "line 4: answer 'Right' is no letter"),
        (set_cell(3, 3, "(a)"), "pair 3/4: both questions have the same answer"),
        (set_cell(3, 2, "(a) x (b) y (c) z"), "line 4: options '(a) x (b) y (c) z' do not read `(a) x (b) y`"),
        (set_cell(3, 2, "(a) x (b) "), "line 4: options '(a) x (b)' do not read"),
        (set_cell(3, 2, "left or right"), "line 4: options 'left or right' do not read"),
        (set_cell(3, 1, " "), "line 4: the question is empty"),
        (set_cell(3, 0, "3.0"), "line 4: index '3.0' is no number from 1"),
        (set_cell(3, 0, "0"), "line 4: index '0' is no number from 1"),
        (set_cell(3, 0, "4"), "question 4 occurs more than once"),
        (lambda rows: rows[1:], "pair 1/2 is incomplete: only question 2 is there"),
        (lambda rows: rows[:-1], "pair 7/8 is incomplete: only question 7 is there"),
        (lambda rows: [*rows, ["9", "?"]], "line 10: 2 cells, expected index, question, options, answer"),
        (lambda rows: [], "Questions.csv: no question"),
    ],
)
def test_wrong_rows_are_refused_and_named(tmp_path: Path, change: Callable[[Rows], Rows], said: str) -> None:
    report, data = inspect(write(tmp_path, change(make_rows())))
    assert data is None
    assert report.verdict == "wrong"
    assert any(said in p for p in report.problems), report.problems
    assert report.repair


def test_pictures_are_looked_at(tmp_path: Path) -> None:
    root = write(tmp_path, make_rows())
    (root / "MMVP Images" / "2.jpg").unlink()
    (root / "MMVP Images" / "7.jpg").write_text("<html>")
    report, _ = inspect(root)
    assert report.problems == ("MMVP Images/2.jpg: missing", "MMVP Images/7.jpg: empty or no picture")


def test_the_hosted_table_of_pictures_is_known_by_name(tmp_path: Path) -> None:
    pictures = write(tmp_path / "a" / "pics", make_rows())
    (pictures / "Questions.csv").unlink()
    table = tmp_path / "b" / "MMVP" / "data" / "train-00000-of-00001.parquet"
    table.parent.mkdir(parents=True)
    pq.write_table(pa.table({"image": pa.array([{"bytes": b"x", "path": "1.jpg"}])}), table)
    for where, what in (("a", "MMVP Images, 8 files"), ("b", "data/train-00000-of-00001.parquet")):
        report = check_dataset("mmvp", tmp_path / where)
        assert report.verdict == "wrong"
        assert report.problems == (
            f"{what}: pictures only, as in the hosted table (whose rows go 1, 10, 100, ...); "
            "Questions.csv is not there",
        )


def test_mmvp_vlm_is_known_by_name(tmp_path: Path) -> None:
    (tmp_path / "MMVP").mkdir()
    (tmp_path / "MMVP" / "Questions.csv").write_text("Question ID,Type,Statement\n1,Orientation,Dog facing left\n")
    report = check_dataset("mmvp", tmp_path)
    assert report.verdict == "wrong"
    assert "this is MMVP-VLM" in report.problems[0]


def test_candidates_splits_and_encoding(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, make_rows())
    assert [re.sub(r".*/", "", p) for p in inspect(tmp_path)[0].problems] == ["one", "two"]
    write(tmp_path / "mmvp", make_rows())
    assert inspect(tmp_path)[0].root == tmp_path / "mmvp"
    with pytest.raises(UsageError, match="unknown mmvp split"):
        inspect(tmp_path, split="train")
    (tmp_path / "mmvp" / "Questions.csv").write_bytes("Index,Q,O,A\n1,caf\xe9,(a) x (b) y,(a)\n".encode("latin-1"))
    assert "Questions.csv: cannot be read" in inspect(tmp_path)[0].problems[0]
