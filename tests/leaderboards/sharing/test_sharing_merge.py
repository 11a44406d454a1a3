"""Merging stores: what is kept and what is named. Expected values come from the made-up results."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sharing_stores import EARLY, LATE, N, add, add_failure, content, edited, fingerprint, merged, run, snapshot

from mtv.errors import CacheError, UsageError
from mtv.eval.store import ResultStore
from mtv.results import find_records, is_whole, read_record, read_samples


def values(root: Path) -> list[float | None]:
    return [r.metrics["imagenet/top1"].value for _, r in find_records(root) if r.metrics]


def test_disjoint_stores_travel_with_tables_and_pictures(tmp_path: Path) -> None:
    a, b, out = (tmp_path / n for n in ("a", "b", "out"))
    add(a, 10, pictures=2)
    add(a, 11, task="coco")
    add(b, 12, model="other", pictures=1)
    before = snapshot(a), snapshot(b)
    report = merged(a, b, out=out)
    assert (snapshot(a), snapshot(b)) == before, "sources are only read"
    assert report.exit_code == 0
    assert len(report.written) == 3
    assert content(out) == content(a) | content(b)
    assert snapshot(out) == before[0] | before[1], "nothing clashes, so every file is a copy of its source"
    for path, record in find_records(out):
        assert is_whole(path, record, verify=True)
        assert read_samples(path, record)["hit"].sum() in (10, 11, 12)
        assert all((path.parent / a).is_file() for a in record.artefacts)


def test_merging_again_changes_nothing(tmp_path: Path) -> None:
    a, b, out = (tmp_path / n for n in ("a", "b", "out"))
    add(a, 10, pictures=1)
    add(b, 10, created=LATE)
    add(b, 15, task="nyuv2")
    merged(a, b, out=out)
    first = snapshot(out)
    again = merged(a, b, out=out)
    assert snapshot(out) == first
    assert not again.written
    assert again.present == 2
    assert merged(out, a, b, out=out).exit_code == 0, "the target may stand among the sources"
    assert snapshot(out) == first


def test_of_equal_numbers_the_earliest_is_kept_whatever_the_order(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    # An hour later in UTC, although the text of the time is smaller: times are compared, not texts.
    add(a, 10, created="2026-01-01T00:00:00-02:00")
    add(b, 10, created="2026-01-01T01:00:00+00:00", seed=7)
    for k, order in enumerate([(a, b), (b, a)]):
        report = merged(*order, out=tmp_path / f"out{k}")
        assert not report.conflicts, "another bootstrap seed moves intervals, not numbers"
        assert len(report.left_out) == 1
        assert content(tmp_path / f"out{k}") == content(b)


def test_a_conflict_is_named_and_nothing_taken(tmp_path: Path) -> None:
    a, b, out = (tmp_path / n for n in ("a", "b", "out"))
    add(a, 10, created=EARLY, env={"mtv": "0.1.0", "torch": "2.9.0"})
    add(b, 20, created=LATE, env={"mtv": "0.2.0", "torch": "2.9.1"})
    add(b, 5, task="coco")
    code, _, err = run("merge", a, b, "--out", out)
    assert code == 1
    name = f"vit-{fingerprint('vitw')[:8]}/imagenet/mini-"
    for part in (f"a/{name}", f"b/{name}", "25 percent", "50 percent", "mtv 0.1.0", "mtv 0.2.0", "torch 2.9.1"):
        assert part in err
    assert "none taken" in err
    assert str(tmp_path / "a") not in err, "both paths are relative"
    assert [r.task for _, r in find_records(out)] == ["coco"], "the rest is merged"


def test_a_conflict_leaves_what_the_target_holds(tmp_path: Path) -> None:
    a, out = tmp_path / "a", tmp_path / "out"
    add(a, 10)
    add(out, 20)
    before = snapshot(out)
    report = merged(a, out=out)
    assert report.exit_code == 1
    assert snapshot(out) == before
    (conflict,) = report.conflicts
    assert conflict.metrics == ("imagenet/top1",)
    assert conflict.taken is not None
    assert conflict.taken.name.startswith("out/")


@pytest.mark.parametrize(("prefer", "expected"), [("newest", 20 / N), ("first", 10 / N)])
def test_prefer_decides_a_conflict(tmp_path: Path, prefer: str, expected: float) -> None:
    a, b, out = (tmp_path / n for n in ("a", "b", "out"))
    add(a, 10, created=EARLY)
    add(b, 20, created=LATE)
    code, _, err = run("merge", a, b, "--out", out, "--prefer", prefer)
    assert code == 0
    assert "conflict" in err, "decided, but still named"
    assert values(out) == [100 * expected]


def test_what_prefer_replaces_is_kept_as_previous(tmp_path: Path) -> None:
    a, out = tmp_path / "a", tmp_path / "out"
    add(a, 10, created=LATE, pictures=1)
    old = add(out, 20, created=EARLY)
    bytes_before = old.read_bytes()
    assert merged(a, out=out, prefer="first").written == ()
    report = merged(a, out=out, prefer="newest")
    assert report.exit_code == 0
    assert content(out) == content(a)
    assert old.with_name(f"{old.name}.prev").read_bytes() == bytes_before


def test_a_metric_that_only_one_has_is_no_conflict_and_the_fuller_is_kept(tmp_path: Path) -> None:
    a, b, out = (tmp_path / n for n in ("a", "b", "out"))
    add(a, 10, task="coco", drop=("rsum",), created=EARLY)
    add(b, 10, task="coco", created=LATE)
    report = merged(a, b, out=out)
    assert report.exit_code == 0
    assert content(out) == content(b)


def test_a_result_with_its_table_is_kept_before_one_without(tmp_path: Path) -> None:
    a, out = tmp_path / "a", tmp_path / "out"
    add(out, 10, table=False, created=EARLY)
    add(a, 10, created=LATE)
    merged(a, out=out)
    ((path, record),) = find_records(out)
    assert read_samples(path, record)["hit"].sum() == 10


def test_complete_wins_over_partial_over_failed(tmp_path: Path) -> None:
    a, b, c = (tmp_path / n for n in "abc")
    add(a, 10, status="partial", created=EARLY)
    add(b, 20, status="complete", created=LATE)
    add_failure(c, loaded=True)
    for k, order in enumerate(itertools.permutations((a, b, c))):
        out = tmp_path / f"out{k}"
        report = merged(*order, out=out)
        assert report.exit_code == 0, "an unfinished number is no rival"
        assert content(out) == content(b)
        assert len(report.left_out) == 2


@pytest.mark.parametrize("loaded", [True, False])
def test_a_failure_stays_only_where_there_is_no_result(tmp_path: Path, loaded: bool) -> None:
    a, b, out = (tmp_path / n for n in ("a", "b", "out"))
    add_failure(a, loaded=loaded, created=EARLY)
    add_failure(b, loaded=loaded, created=LATE)
    merged(a, b, out=out)
    ((_, record),) = find_records(out)
    assert (record.status, record.created) == ("failed", LATE)
    add(b, 10, data="second")
    merged(b, out=out)
    assert [r.status for _, r in find_records(out)] == ["complete"]


def test_shards_of_one_key_stay_side_by_side_until_the_whole_comes(tmp_path: Path) -> None:
    a, b, c, out = (tmp_path / n for n in ("a", "b", "c", "out"))
    add(a, 10, shard="0/2")
    add(b, 14, shard="1/2")
    assert merged(a, b, out=out).exit_code == 0
    assert content(out) == content(a) | content(b)
    names = {p.name.removesuffix(".json").rpartition("-")[2] for p, _ in find_records(out)}
    assert names == {"shard0of2", "shard1of2"}
    add(c, 24)
    report = merged(c, out=out)
    assert report.exit_code == 0
    assert content(out) == content(c)
    assert len(list(out.rglob("*.prev"))) == 2, "the shards are out of sight, not gone"


def test_an_open_conflict_of_whole_results_leaves_the_shards_of_the_target(tmp_path: Path) -> None:
    a, b, out = (tmp_path / n for n in ("a", "b", "out"))
    add(out, 10, shard="0/2")
    add(a, 11)
    add(b, 12)
    before = snapshot(out)
    assert merged(a, b, out=out).exit_code == 1
    assert snapshot(out) == before


def test_one_protocol_on_two_data_sets_gets_two_names(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    add(a, 10, data="first", created=EARLY, pictures=1)
    add(b, 20, data="second", created=LATE, pictures=1)
    outs = [tmp_path / "o1", tmp_path / "o2"]
    merged(a, b, out=outs[0])
    merged(b, a, out=outs[1])
    assert snapshot(outs[0]) == snapshot(outs[1]), "names do not depend on the order of the sources"
    assert content(outs[0]) == content(a) | content(b)
    for path, record in find_records(outs[0]):
        hits = {fingerprint("imagenetfirst"): 10, fingerprint("imagenetsecond"): 20}[record.key[2]]
        assert read_samples(path, record)["hit"].sum() == hits
        assert all((path.parent / name).is_file() for name in record.artefacts)


def test_one_model_under_two_names_is_one_result(tmp_path: Path) -> None:
    a, b, out = (tmp_path / n for n in ("a", "b", "out"))
    path = add(b, 10, created=LATE)
    edited(path, lambda r: r["model"].update(alias="another-name"))
    add(a, 10, created=EARLY)
    report = merged(a, b, out=out)
    assert len(report.written) == 1
    assert content(out) == content(a)


def test_a_picture_that_is_gone_is_named_and_costs_no_result(tmp_path: Path) -> None:
    a, out = tmp_path / "a", tmp_path / "out"
    path = add(a, 10, pictures=2)
    next(path.with_suffix("").glob("best-00*")).unlink()
    code, _, err = run("merge", a, "--out", out)
    assert code == 0
    assert "without 1 pictures" in err
    assert values(out) == [25.0]


def test_the_runner_finds_what_was_merged(tmp_path: Path) -> None:
    a, b, out = (tmp_path / n for n in ("a", "b", "out"))
    add(a, 10, data="first")
    add(b, 20, data="second")
    merged(a, b, out=out)
    for _, record in find_records(out):
        found = ResultStore(out).complete(record.key, record.model, "imagenet", content=None)  # type: ignore[arg-type]
        assert found is not None
        assert found[1].key == record.key


def test_a_missing_source_and_a_lone_target_are_errors(tmp_path: Path) -> None:
    add(tmp_path / "a", 10)
    with pytest.raises(CacheError, match="no result store at"):
        merged(tmp_path / "none", out=tmp_path / "out")
    with pytest.raises(UsageError, match="nothing to merge"):
        merged(tmp_path / "a", out=tmp_path / "a")
    assert run("merge", "--out", tmp_path / "out")[0] == 2


RESULT = st.tuples(
    st.sampled_from(["a", "b"]),  # model
    st.sampled_from([10, 10, 10, 20]),  # hits
    st.sampled_from(["set", "other"]),  # data
    st.sampled_from(["", "", "0/2", "1/2"]),  # shard
    st.sampled_from([EARLY, LATE]),
    st.booleans(),  # with a table
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stores=st.lists(st.lists(RESULT, min_size=1, max_size=3), min_size=3, max_size=3))
def test_order_does_not_matter_and_merging_is_idempotent(
    tmp_path_factory: pytest.TempPathFactory, stores: list[list[tuple[str, int, str, str, str, bool]]]
) -> None:
    root = tmp_path_factory.mktemp("any")
    roots = []
    for k, rows in enumerate(stores):
        roots.append(root / f"s{k}")
        for model, hits, data, shard, created, table in rows:
            add(roots[-1], hits, model=model, data=data, shard=shard, created=created, table=table)
    first = merged(*roots, out=root / "out")
    second = merged(*roots[::-1], out=root / "tuo")
    (root / "out").mkdir(exist_ok=True)
    (root / "tuo").mkdir(exist_ok=True)
    assert snapshot(root / "out") == snapshot(root / "tuo")
    assert first.exit_code == second.exit_code
    before = snapshot(root / "out")
    assert merged(*roots, out=root / "out").written == ()
    assert snapshot(root / "out") == before
    # Every key of a source is in the target, or named as an open conflict.
    disputed = {e.record.key for c in first.conflicts for e in c.entries}
    there = {read_record(p).key for p, _ in find_records(root / "out")}
    assert {r.key for s in roots for _, r in find_records(s)} == there | disputed
