"""Merging damaged stores, and merging that is killed: the rest is merged, nothing is lost, a rerun finishes."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest
from sharing_stores import LATE, add, content, edited, merged, run, snapshot

from mtv.errors import CacheError
from mtv.leaderboards.sharing import placing
from mtv.results import find_records, is_whole


def _truncate_record(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _flip_table(path: Path) -> None:
    table = path.with_suffix(".samples.parquet")
    raw = bytearray(table.read_bytes())
    raw[len(raw) // 2] ^= 255
    table.write_bytes(bytes(raw))


DAMAGE = {
    "cut short": (_truncate_record, "cannot be read"),
    "a list": (lambda p: p.write_text("[]"), "not a result record"),
    "binary": (lambda p: p.write_bytes(b"\xff\xfe\x00"), "cannot be read"),
    "other table": (_flip_table, "sample table"),
    "no table": (lambda p: p.with_suffix(".samples.parquet").unlink(), "sample table"),
    "future": (lambda p: edited(p, lambda r: r.update(schema_version=99)), "schema version 99"),
    "no metrics": (lambda p: edited(p, lambda r: r.pop("metrics")), "not a result record"),
    "no time": (lambda p: edited(p, lambda r: r.update(created="yesterday")), "ISO 8601"),
    "upwards": (lambda p: edited(p, lambda r: r.update(task="../../up")), "task '../../up' is no name"),
    "upwards model": (lambda p: edited(p, lambda r: r["model"].update(fingerprint="../../x")), "model.fingerprint"),
    "upwards file": (lambda p: edited(p, lambda r: r["samples"].update(file="../x.parquet")), "outside its folder"),
    "upwards picture": (lambda p: edited(p, lambda r: r.update(artefacts=["../../x.webp"])), "outside its folder"),
    "table list": (lambda p: edited(p, lambda r: r.update(samples=[])), "samples is not an object"),
    "text value": (
        lambda p: edited(p, lambda r: r["metrics"]["imagenet/top1"].update(value="many")),
        "metrics[imagenet/top1].value 'many'",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_record_is_named_and_the_rest_merged(tmp_path: Path, kind: str) -> None:
    a, out = tmp_path / "a", tmp_path / "out"
    harm, reason = DAMAGE[kind]
    harm(add(a, 10))
    add(a, 11, task="coco")
    code, _, err = run("merge", a, "--out", out)
    assert code == 1
    assert "damaged, skipped: a/vit-" in err
    assert reason in err
    assert [r.task for _, r in find_records(out)] == ["coco"]
    assert {p.name for p in tmp_path.iterdir()} == {"a", "out"}, "no name leads out of the store"


def test_another_machine_repairs_a_damaged_result(tmp_path: Path) -> None:
    a, b, out = (tmp_path / n for n in ("a", "b", "out"))
    _flip_table(add(a, 10))
    add(b, 10, created=LATE)
    _flip_table(add(out, 10))
    assert merged(a, b, out=out).exit_code == 1, "the damaged ones are still named"
    assert content(out) == content(b)
    assert merged(b, out=out).exit_code == 0


def test_an_unreadable_file_of_the_target_is_never_overwritten(tmp_path: Path) -> None:
    a, out = tmp_path / "a", tmp_path / "out"
    add(a, 10)
    broken = add(out, 20)
    broken.write_text("{")
    report = merged(a, out=out)
    assert report.exit_code == 1
    assert broken.read_text() == "{"
    assert len(report.written) == 1
    broken.unlink()
    assert content(out) == content(a)


@pytest.mark.parametrize("step", range(7))
def test_killed_at_any_write_nothing_is_lost_and_a_rerun_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    a, b, out, whole = (tmp_path / n for n in ("a", "b", "out", "whole"))
    add(a, 10, pictures=1)
    add(b, 20, model="other", pictures=1)
    add(out, 30, task="coco")
    shutil.copytree(out, whole)
    merged(a, b, out=whole)
    sources, held = (snapshot(a), snapshot(b)), snapshot(out)
    count = itertools.count()

    def dying(write: object) -> object:
        def wrapped(path: Path, value: object) -> None:
            if next(count) == step:
                raise KeyboardInterrupt
            write(path, value)  # type: ignore[operator]

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(placing, "atomic_write", dying(placing.atomic_write))
        patch.setattr(placing, "atomic_write_json", dying(placing.atomic_write_json))
        if step < 6:
            with pytest.raises(KeyboardInterrupt):
                merged(a, b, out=out)
        else:
            merged(a, b, out=out)  # two results of table, picture and record: there is no seventh write
    assert (snapshot(a), snapshot(b)) == sources
    assert held.items() <= snapshot(out).items()
    for path, record in find_records(out):
        assert is_whole(path, record, verify=True), "a record never stands without its table"
    assert merged(a, b, out=out).exit_code == 0
    assert snapshot(out) == snapshot(whole)


def test_a_table_that_changes_while_it_is_copied_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, out = tmp_path / "a", tmp_path / "out"
    add(a, 10)
    copyfile = shutil.copyfile

    def changing(source: Path, target: Path) -> None:
        copyfile(source, target)
        with Path(target).open("ab") as f:
            f.write(b"x")

    monkeypatch.setattr(placing.shutil, "copyfile", changing)
    with pytest.raises(CacheError, match="changed while it was copied"):
        merged(a, out=out)
    assert not [p for p in out.rglob("*") if p.is_file()]
