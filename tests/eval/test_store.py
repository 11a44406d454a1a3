"""The result store: atomic, keyed by content, never losing what was there."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtv.errors import CacheError
from mtv.eval.store import ResultStore, slug
from mtv.results import TaskResult, find_records, is_whole, read_record, read_samples


def record(*, hash_: str = "a" * 64, data: str = "d" * 64, status: Any = "complete", **extra: Any) -> TaskResult:
    return TaskResult(
        created="2026-01-01T00:00:00+00:00",
        status=status,
        task="knn",
        protocol={"id": f"knn/paper#{hash_[:8]}", "preset": "paper", "hash": hash_},
        model={"spec": "timm:a/b@c?size=3", "alias": None, "fingerprint": "f" * 64},
        data={"name": "x", "fingerprint": data, "content_sha256": "c0"},
        **extra,
    )


TABLE = {"sample_id": np.array(["a", "b"]), "rank": np.array([1, 2])}


def test_round_trip_with_samples_and_pictures(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    path, written = store.write(record(), TABLE, [("best-00", Image.new("RGB", (4, 4)))])
    assert path.relative_to(tmp_path).as_posix() == "timm-a-b-c-size-3-ffffffff/knn/paper-aaaaaaaa.json"
    assert read_record(path) == written
    assert read_samples(path, written)["rank"].tolist() == [1, 2]
    assert (path.parent / written.artefacts[0]).is_file()
    assert [p for p, _ in find_records(tmp_path)] == [path]
    found = store.complete(written.key, written.model, "knn", content="c0")
    assert found is not None
    assert found[1] == written


def test_nothing_counts_as_done_that_is_not_whole(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    path, written = store.write(record(), TABLE)
    assert store.complete(written.key, written.model, "knn", content="changed bytes") is None
    assert store.complete(("x", *written.key[1:]), written.model, "knn", content="c0") is None
    samples = path.with_name(str((written.samples or {})["file"]))
    kept = samples.read_bytes()
    samples.write_bytes(kept[:-1] + b"x")
    assert is_whole(path, written)
    assert store.complete(written.key, written.model, "knn", content="c0", verify=True) is None
    samples.unlink()
    assert store.complete(written.key, written.model, "knn", content="c0") is None
    with pytest.raises(CacheError, match="missing"):
        read_samples(path, written)


def test_failed_results_are_tried_again(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    _, written = store.write(record(status="failed", error={"type": "X", "message": "m", "stage": "run"}))
    assert store.complete(written.key, written.model, "knn", content="c0") is None


def test_another_data_set_does_not_overwrite(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    first, _ = store.write(record(), TABLE)
    second, _ = store.write(record(data="e" * 64), TABLE)
    assert first != second
    assert second.name == "paper-aaaaaaaa-eeeeeeee.json"
    assert len(list(find_records(tmp_path))) == 2


def test_force_keeps_the_old_record(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    path, _ = store.write(record(), TABLE)
    store.write(replace(record(), created="2027-01-01T00:00:00+00:00"), TABLE, keep_previous=True)
    assert json.loads(path.with_name(path.name + ".prev").read_text())["created"].startswith("2026")
    assert read_record(path).created.startswith("2027")


def test_damaged_and_newer_records_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = ResultStore(tmp_path)
    path, written = store.write(record(), TABLE)
    path.write_text("{")
    assert store.complete(written.key, written.model, "knn", content="c0") is None
    assert path.name in caplog.text
    path.write_text(json.dumps({**written.to_json(), "schema_version": 99}))
    with pytest.raises(CacheError, match="schema version 99"):
        read_record(path)


def test_full_disk_names_the_file_and_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ResultStore(tmp_path)
    path, written = store.write(record(), TABLE)
    before = sorted(p.name for p in path.parent.iterdir())

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CacheError, match=r"paper-aaaaaaaa.*No space left"):
        store.write(replace(record(), created="2027-01-01T00:00:00+00:00"), TABLE)
    monkeypatch.undo()
    assert read_record(path) == written
    assert sorted(p.name for p in path.parent.iterdir()) == before


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(CacheError, match="is a file"):
        ResultStore(tmp_path / "f")


def test_slugs_are_safe() -> None:
    assert slug("hf:./a b/../c") == "hf-.-a-b-..-c"
    assert slug("///") == "model"
