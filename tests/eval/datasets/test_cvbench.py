"""CV-Bench reader: generated trees in the true layout, Parquet with pictures inside, and the real `cvbench_like`."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mtv.errors import DataError, UsageError
from mtv.eval.datasets import cvbench
from mtv.eval.datasets.cvbench import EXPECTED, FIELDS, SOURCES, TASKS, inspect
from mtv.eval.datasets.parquet import ParquetPicture, pictures, read_rows
from mtv.eval.datasets.questions import Question, letter_index
from mtv.eval.datasets.registry import check_dataset, open_dataset
from mtv.eval.features.content import ContentIndex, sample_digest

Row = dict[str, Any]


def save_picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def make_row(idx: int, kind: str, task: str, source: str, filename: str, n_choices: int = 4) -> Row:
    """A row with every field of the hosted tables."""
    choices = [str((idx + k) % 7) for k in range(n_choices)]
    lines = "\n".join(f"({'ABCDEF'[k]}) {c}" for k, c in enumerate(choices))
    question = f"Which of {idx}?"
    return {
        "idx": idx,
        "type": kind,
        "task": task,
        "question": question,
        "choices": choices,
        "answer": f"({'ABCDEF'[idx % n_choices]})",
        "prompt": f"{question} Select from the following choices.\n{lines}",
        "filename": filename,
        "source": source,
        "source_dataset": f"{source} validation",
        "source_filename": f"{idx}.jpg",
        "target_class": None,
        "target_size": None,
        "bbox": None,
    }


def make_rows(per_task: int = 3) -> dict[str, list[Row]]:
    """Table to rows; two rows share a picture where there are three or more."""
    rows: dict[str, list[Row]] = {"test_2d": [], "test_3d": []}
    idx = 0
    for kind, tasks in TASKS.items():
        for task in tasks:
            for k in range(per_task):
                source = "Omni3D" if kind == "3D" else ("ADE20K", "COCO")[k % 2]
                name = f"img/{kind}/{task.lower()}/{source.lower()}_{k // 2}.png"
                rows[f"test_{kind.lower()}"].append(make_row(idx, kind, task, source, name, 4 if kind == "2D" else 2))
                idx += 1
    return rows


def write_jsonl(root: Path, tables: dict[str, list[Row]], *, images: bool = True) -> Path:
    """JSON lines beside the picture tree."""
    root.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        (root / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    names = sorted({r["filename"] for rows in tables.values() for r in rows})
    for seed, name in enumerate(names if images else ()):
        save_picture(root / name, seed)
    return root


def write_parquet(root: Path, tables: dict[str, list[Row]], pictures_from: Path, *, row_group_size: int = 4) -> Path:
    """Tables as hosted: the same rows with the pictures inside, in several row groups."""
    root.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        image = [{"bytes": (pictures_from / r["filename"]).read_bytes(), "path": r["filename"]} for r in rows]
        columns = {k: pa.array([r[k] for r in rows]) for k in rows[0]} | {"image": pa.array(image)}
        pq.write_table(pa.table(columns), root / f"{name}.parquet", row_group_size=row_group_size)
    return root


def test_items_in_file_order_with_all_a_prompt_needs(tmp_path: Path) -> None:
    rows = make_rows()
    report, data = inspect(write_jsonl(tmp_path / "CV-Bench", rows).parent)
    assert data is not None
    assert (report.verdict, report.label) == ("ok-but", "subset (12 of 2638)")
    assert report.layout == "test_2d.jsonl + test_3d.jsonl"
    assert report.found == {"questions": 12, "Count": 3, "Relation": 3, "Depth": 3, "Distance": 3, "images": 10}
    assert [q.id for q in data.questions] == [f"{'2D' if i < 6 else '3D'}/{i}" for i in range(12)]
    flat = [*rows["test_2d"], *rows["test_3d"]]
    for question, row in zip(data.questions, flat, strict=True):
        assert question.choices == tuple(row["choices"])
        assert f"({question.label})" == row["answer"]
        assert (question.prompt, question.question, question.task) == (row["prompt"], row["question"], row["task"])
        assert (question.type, question.source, question.pair) == (row["type"], row["source"], "")
        assert data.images[question.image].read() == (tmp_path / "CV-Bench" / row["filename"]).read_bytes()
    assert len(data.images) == 10


@pytest.mark.parametrize(("split", "types"), [("test_2d", {"2D"}), ("test_3d", {"3D"}), ("test", {"2D", "3D"})])
def test_splits(tmp_path: Path, split: str, types: set[str]) -> None:
    write_jsonl(tmp_path, make_rows())
    report, data = inspect(tmp_path, split=split)
    assert data is not None
    assert {q.type for q in data.questions} == types
    assert report.expected == EXPECTED[split]
    assert report.label == f"subset ({6 * len(types)} of {EXPECTED[split]['questions']})"
    assert {q.image for q in data.questions} == set(data.images)


def test_published_counts_sum_up() -> None:
    assert EXPECTED["test"]["questions"] == 2638
    assert sum(v for k, v in EXPECTED["test"].items() if k != "questions") == 2638
    assert EXPECTED["test_2d"]["questions"] + EXPECTED["test_3d"]["questions"] == 2638


def test_the_full_set_is_ok_and_quick(tmp_path: Path) -> None:
    """2,638 rows with the published counts and sources; the pictures are few, which the count does not mind."""
    tables: dict[str, list[Row]] = {"test_2d": [], "test_3d": []}
    for kind, tasks in TASKS.items():
        for task, n in tasks.items():
            for k in range(n):
                source = "Omni3D" if kind == "3D" else SOURCES[k % 2]
                name = f"img/{kind}/{task.lower()}_{k % 5}.png"
                tables[f"test_{kind.lower()}"].append(
                    make_row(k + (task == "Relation") * 788, kind, task, source, name)
                )
    for number, row in enumerate(tables["test_3d"]):
        row["idx"] = number  # starts again in the second table: ids are unique nevertheless
    report, data = inspect(write_jsonl(tmp_path, tables))
    assert data is not None
    assert (report.verdict, report.label, report.problems) == ("ok", "", ())
    assert len({q.id for q in data.questions}) == 2638


def test_a_table_alone_is_a_subset(tmp_path: Path) -> None:
    write_jsonl(tmp_path, {"test_2d": make_rows()["test_2d"]})
    report, data = inspect(tmp_path)
    assert data is not None
    assert report.label == "subset (6 of 2638)"
    assert check_dataset("cvbench", tmp_path, split="test_3d").verdict == "missing"


def test_parquet_holds_the_same_set(tmp_path: Path) -> None:
    rows = make_rows(5)
    tree = write_jsonl(tmp_path / "a" / "CV-Bench", rows)
    write_parquet(tmp_path / "b" / "CV-Bench", rows, tree)
    _, lines = inspect(tmp_path / "a")
    report, table = inspect(tmp_path / "b")
    assert lines is not None
    assert table is not None
    assert report.layout == "test_2d.parquet + test_3d.parquet"
    assert table.questions == lines.questions
    assert table.fingerprint == lines.fingerprint
    assert all(isinstance(ref, ParquetPicture) for ref in table.images.values())
    for name in reversed(list(lines.images)):  # any order, across row groups and tables
        assert table.images[name].read() == lines.images[name].read()
    assert table.images["img/3D/depth/omni3d_0.png"].name == "test_3d.parquet/0"


def test_a_full_copy_reads_lines_and_falls_back_to_the_tables(tmp_path: Path) -> None:
    """Both forms are hosted side by side: without the picture tree the JSON lines alone are of no use."""
    rows = make_rows()
    tree = write_jsonl(tmp_path / "tree", rows)
    both = write_parquet(write_jsonl(tmp_path / "both", rows), rows, tree)
    assert inspect(both)[0].layout == "test_2d.jsonl + test_3d.jsonl"
    no_tree = write_parquet(write_jsonl(tmp_path / "no_tree", rows, images=False), rows, tree)
    report, data = inspect(no_tree)
    assert report.layout == "test_2d.parquet + test_3d.parquet"
    assert data is not None
    assert data.images[data.questions[0].image].read().startswith(b"\x89PNG")


def test_full_check_decodes_pictures_of_both_forms(tmp_path: Path) -> None:
    rows = make_rows()
    tree = write_jsonl(tmp_path / "tree" / "cvbench", rows)
    write_parquet(tmp_path / "table" / "cvbench", rows, tree)
    for where in ("tree", "table"):
        assert check_dataset("cvbench", tmp_path / where, full=True, workers=1).verdict == "ok-but"
    victim = tree / rows["test_3d"][0]["filename"]
    victim.write_bytes(victim.read_bytes()[:60])
    write_parquet(tmp_path / "table" / "cvbench", rows, tree)
    for where, name in (("tree", "img/3D/depth/omni3d_0.png"), ("table", "test_3d.parquet/0")):
        report = check_dataset("cvbench", tmp_path / where, full=True, workers=1)
        assert report.verdict == "wrong"
        assert name in report.problems[0]


def edit(root: Path, table: str, line: int, change: Callable[[Row], Any]) -> None:
    """Apply `change` to one row of a table of JSON lines."""
    path = root / f"{table}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[line])
    change(row)
    lines[line] = json.dumps(row)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.update(answer="(E)"), "test_2d.jsonl line 3: answer '(E)' is beyond the 4 choices"),
        (lambda r: r.update(answer="2"), "line 3: answer '2' is no letter such as (A)"),
        (lambda r: r.update(answer="(AB)"), "line 3: answer '(AB)' is no letter"),
        (lambda r: r.update(choices=["only"]), "line 3: choices are ['only'], expected at least two texts"),
        (lambda r: r.update(choices="AB"), "line 3: choices are 'AB'"),
        (lambda r: r.update(choices=["1", 2]), "line 3: choices are ['1', 2]"),
        (lambda r: r.update(type="3D"), "line 3: type is '3D', expected 2D"),
        (lambda r: r.update(idx="two"), "line 3: idx is 'two', expected a number"),
        (lambda r: r.update(idx=0), "question 2D/0 occurs more than once"),
        (lambda r: r.update(prompt=" "), "line 3: prompt is ' ', expected text"),
        (lambda r: r.update(filename="/etc/x.png"), "line 3: filename '/etc/x.png' is not relative to the table"),
        (lambda r: r.update(filename="img/none.png"), "img/none.png: missing"),
        *((lambda r, f=f: r.pop(f), f"line 3: lacks {f}") for f in FIELDS),
    ],
)
def test_wrong_rows_are_refused_and_named(tmp_path: Path, change: Callable[[Row], Any], said: str) -> None:
    root = write_jsonl(tmp_path, make_rows())
    edit(root, "test_2d", 2, change)
    report, data = inspect(root)
    assert data is None
    assert report.verdict == "wrong"
    assert any(said in p for p in report.problems), report.problems
    assert report.repair


def test_broken_files_are_refused_and_named(tmp_path: Path) -> None:
    rows = make_rows()
    root = write_jsonl(tmp_path / "a", rows)
    path = root / "test_3d.jsonl"
    path.write_text(path.read_text()[:-40], encoding="utf-8")
    assert "test_3d.jsonl line 6: not valid JSON" in inspect(root)[0].problems[0]
    root = write_jsonl(tmp_path / "b", rows)
    (root / rows["test_2d"][0]["filename"]).write_bytes(b"")
    assert inspect(root)[0].problems == ("img/2D/count/ade20k_0.png: empty or no picture",)
    root = write_parquet(tmp_path / "c", rows, tmp_path / "a")
    table = root / "test_2d.parquet"
    table.write_bytes(table.read_bytes()[:-30])
    assert "test_2d.parquet: no readable Parquet file" in inspect(root)[0].problems[0]
    root = write_jsonl(tmp_path / "d", {"test_2d": []})
    assert inspect(root)[0].verdict == "missing"


def test_parquet_columns_are_checked(tmp_path: Path) -> None:
    rows = make_rows()
    tree = write_jsonl(tmp_path / "tree", rows)
    root = write_parquet(tmp_path / "t", rows, tree)
    table = pq.read_table(root / "test_2d.parquet")
    pq.write_table(table.drop_columns(["choices", "source"]), root / "test_2d.parquet")
    assert "test_2d.parquet: no column choices, source" in inspect(root)[0].problems[0]
    names = pa.array([r["filename"] for r in rows["test_2d"]])
    pq.write_table(table.drop_columns(["image"]).append_column("image", names), root / "test_2d.parquet")
    assert "no column image of pictures (string)" in inspect(root)[0].problems[0]


def test_pictures_of_a_changed_or_lost_table(tmp_path: Path) -> None:
    """Kept row groups never outlive the file they were read from."""
    path = tmp_path / "t.parquet"

    def write(content: Sequence[bytes | None]) -> None:
        pq.write_table(pa.table({"image": pa.array([{"bytes": c, "path": "x"} for c in content])}), path)

    write([b"one", b"two", None])
    refs = pictures(path, "t.parquet")
    assert [r.read() for r in refs[:2]] == [b"one", b"two"]
    with pytest.raises(DataError, match=r"t\.parquet/2: no bytes in column image"):
        refs[2].read()
    write([b"other", b"two", b"three"])
    assert refs[0].read() == b"other"
    path.unlink()
    with pytest.raises(DataError, match=r"t\.parquet/1: cannot be read"):
        refs[1].read()
    with pytest.raises(DataError, match="no readable Parquet file"):
        read_rows(path, ["image"])


def test_hashes_of_pictures_inside_a_table_are_remembered_and_renewed(tmp_path: Path) -> None:
    """The feature cache keys on these digests: one per row, and all of them anew when the table changes."""
    rows = make_rows(5)
    tree = write_jsonl(tmp_path / "tree", rows)
    root = write_parquet(tmp_path / "t", rows, tree)

    def digests() -> dict[str, str]:
        _, data = inspect(root)
        assert data is not None
        return ContentIndex(tmp_path / "cache").digests({k: (v,) for k, v in data.images.items()})

    def expected() -> dict[str, str]:
        names = dict.fromkeys(r["filename"] for table in rows.values() for r in table)
        return {n: sample_digest([hashlib.sha256((tree / n).read_bytes()).hexdigest()]) for n in names}

    assert digests() == expected()
    assert digests() == expected()
    save_picture(tree / rows["test_2d"][3]["filename"], 99)
    write_parquet(root, rows, tree)
    assert digests() == expected()


def test_other_sources_are_never_called_cvbench(tmp_path: Path) -> None:
    rows = make_rows()
    for row in (*rows["test_2d"], *rows["test_3d"]):
        row["source"] = f"MiniWorld{row['type']}"
    report, data = inspect(write_jsonl(tmp_path, rows))
    assert data is not None
    assert (report.verdict, report.label) == ("ok-but", "not CV-Bench (12 questions)")
    assert "pictures from MiniWorld2D, MiniWorld3D; CV-Bench has ADE20K, COCO, Omni3D only" in report.problems


def test_extra_tasks_are_kept_and_counted(tmp_path: Path) -> None:
    rows = make_rows()
    rows["test_2d"][0]["task"] = "Existence"
    report, data = inspect(write_jsonl(tmp_path, rows))
    assert data is not None
    assert report.found["Existence"] == 1
    assert data.questions[0].task == "Existence"


@pytest.mark.parametrize("field", ["answer", "question", "prompt", "task", "source", "choices", "filename"])
def test_every_field_is_in_the_fingerprint(tmp_path: Path, field: str) -> None:
    rows = make_rows()
    before = inspect(write_jsonl(tmp_path, rows))[0].fingerprint
    row = rows["test_2d"][1]
    others = {"answer": "(C)", "choices": list(reversed(row["choices"])), "filename": rows["test_2d"][5]["filename"]}
    assert row[field] != others.get(field, "other")
    row[field] = others.get(field, "other")
    assert inspect(write_jsonl(tmp_path, rows))[0].fingerprint != before


def test_order_of_rows_and_ignored_fields_are_not_in_the_fingerprint(tmp_path: Path) -> None:
    rows = make_rows()
    before = inspect(write_jsonl(tmp_path, rows))[0].fingerprint
    rows["test_2d"].reverse()
    rows["test_2d"][0]["source_filename"] = "elsewhere"
    assert inspect(write_jsonl(tmp_path, rows))[0].fingerprint == before


def test_two_candidates_and_names(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_jsonl(tmp_path / name, make_rows())
    report, _ = inspect(tmp_path)
    assert report.verdict == "wrong"
    assert [p.rsplit("/", 1)[1] for p in report.problems] == ["one", "two"]
    write_jsonl(tmp_path / "CV-Bench", make_rows())
    assert inspect(tmp_path)[0].root == tmp_path / "CV-Bench"
    with pytest.raises(UsageError, match="did you mean test_2d"):
        inspect(tmp_path, split="test_2")


def test_real_questions_are_read_and_labelled(real_data: Path) -> None:
    """The real set in CV-Bench's fields: counts of its README, pictures in and beside its folder."""
    path = real_data / "cvbench_like" / "cvbench_like.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    report = check_dataset("cvbench", real_data)
    assert (report.verdict, report.label) == ("ok-but", "not CV-Bench (317 questions)")
    assert report.root == real_data / "cvbench_like"
    assert {k: report.found[k] for k in ("Count", "Depth", "Relation")} == {"Count": 240, "Depth": 48, "Relation": 29}
    data = open_dataset("cvbench", real_data)
    assert isinstance(data, cvbench.QuestionSet)
    assert Counter(q.label for q in data.questions) == Counter(r["answer"].strip("()") for r in rows)
    for q, row in zip(data.questions, rows, strict=True):
        assert q.answer is not None
        assert f"\n({q.label}) {q.choices[q.answer]}" in row["prompt"]
    with Image.open(real_data / "cvbench_like" / rows[0]["filename"]) as picture:
        assert picture.size == tuple(reversed(rows[0]["target_size"]))
    assert data.images[data.questions[0].image].read()[:3] == b"\xff\xd8\xff"
    parts = [open_dataset("cvbench", real_data, split=s) for s in ("test_2d", "test_3d")]
    assert [p.report.label for p in parts] == ["not CV-Bench (269 questions)", "not CV-Bench (48 questions)"]
    assert check_dataset("cvbench", real_data / "cvbench_like").fingerprint == report.fingerprint


@given(st.integers(1, 26), st.integers(0, 25), st.sampled_from(["({})", "{}", " ({}) ", "{})"]), st.booleans())
def test_letters(n: int, index: int, form: str, lower: bool) -> None:
    letter = chr(ord("a" if lower else "A") + index)
    if index < n:
        assert letter_index(form.format(letter), n) == index
    else:
        with pytest.raises(DataError, match=f"beyond the {n} choices"):
            letter_index(form.format(letter), n)


@pytest.mark.parametrize("text", ["", "()", "(1)", "AB", "(a) x", "é"])
def test_what_is_no_letter(text: str) -> None:
    with pytest.raises(DataError, match="no letter"):
        letter_index(text, 26)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"choices": ("a", "b")}, "answer None is none of its 2 choices"),
        ({"choices": ("a", "b"), "answer": 2}, "answer 2 is none of its 2 choices"),
        ({"choices": ("a", "b"), "answer": 1, "open_answer": "b"}, "both choices and open_answer 'b'"),
        ({"answer": 1}, "open_answer is missing"),
        ({}, "open_answer is missing"),
    ],
)
def test_questions_that_make_no_sense_name_their_field(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=f"question q: {said}"):
        Question(id="q", image="i", question="?", **fields)
