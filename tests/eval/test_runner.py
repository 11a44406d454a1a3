"""The runner: what is skipped, what is made again, what is recorded, and that no failure destroys anything."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_helpers import make_job, make_runner, same_outcome, stored
from run_world import write_imagenet

import mtv.eval.task
from mtv.encoders import load
from mtv.encoders.base import Encoder
from mtv.errors import CheckpointError, UsageError
from mtv.eval.jobs import Job
from mtv.eval.records import summary, without_directories
from mtv.eval.runner import Runner, parse_shard
from mtv.eval.tasks.knn import KnnTask
from mtv.results import SCHEMA_VERSION, TaskResult, read_record, samples_path

KNN = make_job("knn", k=3)
SPAIR = make_job("spair", size=64)


@pytest.fixture(scope="module")
def encoder(tiny: str) -> Encoder:
    return load(f"{tiny}:build")


@pytest.fixture(scope="module")
def image_only(tiny: str) -> Encoder:
    return load(f"{tiny}:without_text")


@pytest.fixture
def own_world(tmp_path: Path) -> Path:
    """ImageNet alone, for tests that change files."""
    write_imagenet(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def broken_knn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task `knn` with a bug."""

    class Broken(KnnTask):
        def score(self, run: Any) -> Any:
            raise ZeroDivisionError("a bug in /home/somebody/code/knn.py")

    monkeypatch.setattr(Broken, "__module__", "mtv.eval.tasks.knn")
    import mtv.eval.tasks.knn as home

    monkeypatch.setattr(home, "BrokenKnn", Broken, raising=False)
    monkeypatch.setitem(mtv.eval.task.TASKS, "knn", "mtv.eval.tasks.knn:BrokenKnn")


def go(runner: Runner, encoder: Encoder, *jobs: Job) -> Runner:
    runner.open(jobs)
    runner.run_model(encoder, jobs)
    return runner


def test_the_record_says_everything(encoder: Encoder, world: Path, tmp_path: Path) -> None:
    """Section 3: protocol, model, data, metrics, run, env, samples; nothing about this machine's directories."""
    runner = go(make_runner(world, tmp_path / "out", cache=tmp_path / "cache", artefacts=True, seed=5), encoder, KNN)
    path, record = stored(tmp_path / "out")["python:tiny_model.py:build", "knn"]
    assert json.dumps(record.to_json()) == json.dumps(runner.results[0].to_json())
    assert (record.schema_version, record.status, record.task) == (SCHEMA_VERSION, "complete", "knn")
    assert record.protocol["id"] == f"knn/paper#{KNN.protocol.hash[:8]}"
    assert record.protocol["modified"] == ["k=3"]
    assert record.model["fingerprint"] == encoder.info.fingerprint
    assert record.data["counts"] == {"images": 16, "classes": 5}
    assert (record.data["checked"], record.data["verdict"]) == ("quick", "ok-but")
    assert record.run["cache"] == {"hits": 0, "misses": 16, "stale": 0}
    assert {"device", "tower_dtype", "score_dtype", "tf32", "batch_size", "workers", "seconds"} <= set(record.run)
    assert record.run["seed"] == 5
    assert {"load_model", "load", "extract", "text", "score", "intervals"} == set(record.run["seconds"])
    assert record.env["torch"]
    assert record.samples is not None
    assert record.samples["rows"] == 15
    assert record.headline is not None
    assert record.headline[0] == "knn/top1"
    assert record.metrics["knn/top1"].ci95 is not None
    names = {p.name for p in path.with_suffix("").iterdir()}
    assert names == {Path(a).name for a in record.artefacts}
    assert {"best-00.webp", "worst-00.webp"} <= names
    assert str(tmp_path) not in path.read_text()
    assert str(world) not in path.read_text()
    assert summary(record).startswith(f"knn/top1 {record.headline[1].value:.2f} [")


def test_what_is_stored_is_not_computed_again(
    encoder: Encoder, world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    go(make_runner(world, out, cache=tmp_path / "cache"), encoder, KNN)
    path, first = stored(out)[encoder.info.spec, "knn"]
    before = path.stat().st_mtime_ns
    with caplog.at_level(logging.INFO, logger="mtv.eval"):
        again = go(make_runner(world, out, cache=tmp_path / "cache"), encoder, KNN)
    assert "stored already, skipped" in caplog.text
    assert [p.state for p in again.plans] == ["done"]
    assert again.results == [first]
    assert path.stat().st_mtime_ns == before
    # Without the cache, too: the result itself decides.
    assert go(make_runner(world, out), encoder, KNN).plans[0].state == "done"
    # Another protocol, another model: other results.
    assert go(make_runner(world, out), encoder, make_job("knn", k=4)).plans[0].state == "run"
    assert len(stored(out)) == 1
    assert len(list(out.rglob("paper-*.json"))) == 2


def test_force_computes_again_and_keeps_the_old_record(encoder: Encoder, world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    go(make_runner(world, out, seed=1), encoder, KNN)
    path, first = stored(out)[encoder.info.spec, "knn"]
    go(make_runner(world, out, seed=2, force=True), encoder, KNN)
    assert read_record(path).run["seed"] == 2
    kept = path.with_name(path.name + ".prev")
    assert json.loads(kept.read_text())["run"]["seed"] == 1
    assert list(stored(out)) == [(encoder.info.spec, "knn")]
    same_outcome((path, first), (path, read_record(path)), tolerance=20)


def test_a_table_that_is_not_the_records_own_is_made_again(encoder: Encoder, world: Path, tmp_path: Path) -> None:
    """Killed between a new table and its record: the old record must not vouch for the new table."""
    out = tmp_path / "out"
    go(make_runner(world, out), encoder, KNN)
    path, record = stored(out)[encoder.info.spec, "knn"]
    samples = samples_path(path, record)
    assert samples is not None
    whole = samples.read_bytes()
    samples.write_bytes(whole[:-9] + b"x" * 9)
    assert go(make_runner(world, out), encoder, KNN).plans[0].state == "run"
    assert samples.read_bytes() == whole
    samples.unlink()
    assert go(make_runner(world, out), encoder, KNN).plans[0].state == "run"
    assert samples.read_bytes() == whole


def test_changed_data_are_measured_again(encoder: Encoder, own_world: Path, tmp_path: Path) -> None:
    """Other bytes under the same names: the fingerprint of ids and labels is the same, the bytes are not."""
    out, cache = tmp_path / "out", tmp_path / "cache"
    go(make_runner(own_world, out, cache=cache), encoder, KNN)
    _, first = stored(out)[encoder.info.spec, "knn"]
    pictures = sorted(own_world.rglob("*.JPEG"))
    shutil.copyfile(pictures[0], pictures[5])
    again = go(make_runner(own_world, out, cache=cache), encoder, KNN)
    assert again.plans[0].state == "run"
    _, second = stored(out)[encoder.info.spec, "knn"]
    assert second.key == first.key
    assert second.data["content_sha256"] != first.data["content_sha256"]
    assert second.run["cache"] == {"hits": 15, "misses": 1, "stale": 1}


def test_a_failing_task_is_recorded_and_does_not_stop_the_others(
    encoder: Encoder, world: Path, tmp_path: Path, broken_knn: None
) -> None:
    runner = go(make_runner(world, tmp_path / "out"), encoder, KNN, SPAIR)
    found = stored(tmp_path / "out")
    failed = found[encoder.info.spec, "knn"][1]
    assert failed.status == "failed"
    assert failed.error == {
        "type": "ZeroDivisionError", "message": "a bug in .../knn.py", "stage": "run",
    }  # fmt: skip
    assert failed.data["fingerprint"]
    assert found[encoder.info.spec, "spair"][1].status == "complete"
    assert [f.what for f in runner.failures] == [f"{encoder.info.spec} knn"]
    assert runner.exit_code == 1


def test_a_failed_result_is_tried_again_and_replaced(
    encoder: Encoder, world: Path, tmp_path: Path, broken_knn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(make_runner(world, tmp_path / "out"), encoder, KNN)
    assert stored(tmp_path / "out")[encoder.info.spec, "knn"][1].status == "failed"
    monkeypatch.setitem(mtv.eval.task.TASKS, "knn", "mtv.eval.tasks.knn:KnnTask")
    assert go(make_runner(world, tmp_path / "out"), encoder, KNN).exit_code == 0
    assert [r.status for _, r in stored(tmp_path / "out").values()] == ["complete"]


def test_a_failure_never_replaces_a_result(
    encoder: Encoder, world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk with the data is gone, or the task breaks: what was measured before stays."""
    out = tmp_path / "out"
    go(make_runner(world, out), encoder, KNN)
    path, first = stored(out)[encoder.info.spec, "knn"]
    (tmp_path / "empty").mkdir()
    runner = go(make_runner(tmp_path / "empty", out), encoder, KNN)
    assert runner.exit_code == 3
    assert runner.results[0].status == "failed"
    assert read_record(path) == first
    assert "keeps its earlier result" in caplog.text


def test_force_that_fails_keeps_the_result(encoder: Encoder, world: Path, tmp_path: Path, broken_knn: None) -> None:
    out, knn = tmp_path / "out", mtv.eval.task.TASKS.pop("knn")
    mtv.eval.task.TASKS["knn"] = "mtv.eval.tasks.knn:KnnTask"
    go(make_runner(world, out), encoder, KNN)
    path, first = stored(out)[encoder.info.spec, "knn"]
    mtv.eval.task.TASKS["knn"] = knn
    assert go(make_runner(world, out, force=True), encoder, KNN).exit_code == 1
    assert read_record(path) == first


def test_missing_data_fail_their_task_alone(encoder: Encoder, own_world: Path, tmp_path: Path) -> None:
    """Exit code 3 only when nothing but data checks failed."""
    runner = go(make_runner(own_world, tmp_path / "out"), encoder, KNN, SPAIR)
    found = stored(tmp_path / "out")
    assert found[encoder.info.spec, "knn"][1].status == "complete"
    failed = found[encoder.info.spec, "spair"][1]
    assert failed.error is not None
    assert (failed.error["type"], failed.error["stage"]) == ("DataError", "data")
    assert "SPair-71k" in failed.error["message"]
    assert str(own_world) not in failed.error["message"]
    assert runner.exit_code == 3


def test_a_bug_in_a_reader_stops_only_its_task(
    encoder: Encoder, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KnnTask, "open", lambda self, data: 1 / 0)
    runner = go(make_runner(world, tmp_path / "out"), encoder, KNN, SPAIR)
    assert runner.exit_code == 1
    assert {t: r.status for (_, t), (_, r) in stored(tmp_path / "out").items()} == {
        "knn": "failed", "spair": "complete",
    }  # fmt: skip


def test_a_suite_leaves_out_what_does_not_suit_and_a_name_insists(
    image_only: Encoder, world: Path, tmp_path: Path
) -> None:
    suite = make_job("coco", suite="paper")
    runner = go(make_runner(world, tmp_path / "a"), image_only, suite, KNN)
    assert runner.exit_code == 0
    assert [p.state for p in runner.plans] == [f"skip: {image_only.info.spec} has no text tower", "run"]
    assert [t for _, t in stored(tmp_path / "a")] == ["knn"]
    named = go(make_runner(world, tmp_path / "b"), image_only, make_job("coco"), KNN)
    assert named.exit_code == 1
    assert "no text tower" in named.failures[0].message
    assert len(stored(tmp_path / "b")) == 2


def test_a_dry_run_leaves_no_feature_and_no_result(encoder: Encoder, world: Path, tmp_path: Path) -> None:
    runner = go(make_runner(world, tmp_path / "out", cache=tmp_path / "cache", dry_run=True), encoder, KNN, SPAIR)
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    plan = runner.plans[0]
    assert (plan.state, plan.images, plan.cached) == ("run", 16, 0)
    assert plan.seconds is not None
    assert plan.store_mb > 0
    assert not runner.results
    go(make_runner(world, None, cache=tmp_path / "cache"), encoder, KNN)
    again = go(make_runner(world, tmp_path / "out", cache=tmp_path / "cache", dry_run=True), encoder, KNN)
    assert (again.plans[0].cached, again.plans[0].seconds) == (16, None)


@pytest.mark.parametrize("n", [2, 11])
def test_shards_merge_exactly(encoder: Encoder, world: Path, tmp_path: Path, n: int) -> None:
    """Shards store features only, even more shards than samples; the union scores like one run."""
    cache, jobs = tmp_path / "cache", (KNN, make_job("coco"))
    for i in range(n):
        part = go(make_runner(world, tmp_path / "part", cache=cache, shard=(i, n)), encoder, *jobs)
        assert not part.failures, part.failures
        assert not part.results
    runner = go(make_runner(world, tmp_path / "out", cache=cache), encoder, *jobs)
    assert [r.run["cache"]["misses"] for r in runner.results] == [0, 0]
    go(make_runner(world, tmp_path / "whole"), encoder, *jobs)
    parts, whole = stored(tmp_path / "out"), stored(tmp_path / "whole")
    for key, found in whole.items():
        same_outcome(found, parts[key])


def test_results_do_not_depend_on_batch_workers_or_cache(encoder: Encoder, world: Path, tmp_path: Path) -> None:
    jobs = (KNN, make_job("coco"), SPAIR, make_job("sevenscenes", matches=50))
    go(make_runner(world, tmp_path / "a"), encoder, *jobs)
    go(make_runner(world, tmp_path / "b", batch_size=1, cache=tmp_path / "cache"), encoder, *jobs)
    go(make_runner(world, tmp_path / "c", batch_size=7, workers=2), encoder, *jobs)
    go(make_runner(world, tmp_path / "d", batch_size=None, cache=tmp_path / "cache"), encoder, *jobs)
    whole = stored(tmp_path / "a")
    assert len(whole) == 4
    for other in "bcd":
        found = stored(tmp_path / other)
        for key, result in whole.items():
            same_outcome(result, found[key])
    assert all(r.run["cache"]["misses"] == 0 for _, r in stored(tmp_path / "d").values())


def test_one_pass_per_picture_serves_all_tasks(encoder: Encoder, world: Path, tmp_path: Path) -> None:
    """imagenet and knn read the same pooled vectors: the second task finds them all."""
    runner = go(make_runner(world, None, cache=tmp_path / "c"), encoder, make_job("imagenet", templates="one"), KNN)
    assert [r.run["cache"] for r in runner.results] == [
        {"hits": 0, "misses": 16, "stale": 0}, {"hits": 16, "misses": 0, "stale": 0},
    ]  # fmt: skip


def test_a_model_that_did_not_load_is_recorded_until_it_does(world: Path, tmp_path: Path, encoder: Encoder) -> None:
    out = tmp_path / "out"
    runner = make_runner(world, out)
    runner.fail_model("timm:x@w.pt", "mine", [KNN, SPAIR], CheckpointError("/data/secret/w.pt is damaged", "Copy it."))
    assert runner.exit_code == 1
    assert {r.error and r.error["message"] for _, r in stored(out).values()} == {".../w.pt is damaged\n  Copy it."}
    assert {r.error and r.error["stage"] for _, r in stored(out).values()} == {"load"}
    make_runner(world, out, dry_run=True).loaded("timm:x@w.pt", "mine")
    make_runner(world, out).loaded("timm:other", None)
    assert len(stored(out)) == 2
    make_runner(world, out).loaded("timm:x@w.pt", "mine")
    assert not stored(out)
    assert not list(out.glob("mine-*"))


def test_a_mistyped_model_leaves_nothing_behind(world: Path, tmp_path: Path) -> None:
    runner = make_runner(world, tmp_path / "out")
    runner.fail_model("timm:vit_tinny", None, [KNN], UsageError("unknown timm model"))
    assert runner.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_nothing_is_computed_when_the_store_cannot_be_written(encoder: Encoder, world: Path, tmp_path: Path) -> None:
    from mtv.errors import CacheError

    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"cannot write|is a file"):
        make_runner(world, tmp_path / "file" / "out").open([KNN])


def test_a_bad_list_of_names_fails_before_any_forward_pass(encoder: Encoder, world: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("one\ntwo\n")
    runner = go(make_runner(world, None), encoder, make_job("imagenet", classnames=str(names)))
    assert "2 names, 5 classes" in runner.failures[0].message
    assert not runner.plans


@pytest.mark.parametrize("text", ["1", "2/2", "a/b", "-1/2", "1/2/3", "/"])
def test_shards_are_counted_from_zero(text: str) -> None:
    with pytest.raises(UsageError, match=r"0 <= I < N"):
        parse_shard(text)
    assert parse_shard("3/4") == (3, 4)


def test_messages_lose_directories_and_nothing_else() -> None:
    cut = without_directories
    assert cut("/home/jane/w.pt: tensor 'a/b' (see /x/y/z) and/or https://a.b/c/d") == (
        ".../w.pt: tensor 'a/b' (see .../z) and/or https://a.b/c/d"
    )
    assert cut("val/n01/x.JPEG is 3/4 done; ./rel/path") == "val/n01/x.JPEG is 3/4 done; ./rel/path"


def test_summaries_of_results_without_a_number() -> None:
    record = TaskResult(created="", status="failed", task="knn", protocol={"hash": ""}, model={}, data={})
    assert summary(record) == "knn: failed"


def test_two_models_share_text_and_nothing_else(tiny: str, world: Path, tmp_path: Path) -> None:
    """Results of two models lie side by side, on the same samples."""
    out, cache = tmp_path / "out", tmp_path / "cache"
    for name in ("build", "other"):
        go(make_runner(world, out, cache=cache), load(f"{tiny}:{name}"), make_job("coco"))
    (_, a), (_, b) = stored(out).values()
    assert a.key[0] != b.key[0]
    assert a.key[1:] == b.key[1:]
    assert b.run["cache"]["misses"] == 6
    assert not np.isclose(a.metrics["coco/rsum"].value or 0, b.metrics["coco/rsum"].value or 0)
    assert re.fullmatch(r"[0-9a-f]{64}", a.data["fingerprint"])
