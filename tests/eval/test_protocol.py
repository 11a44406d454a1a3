"""Protocols: hashes, presets, typed overrides, and what is refused."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtv.errors import UsageError
from mtv.eval.protocols import LIST_SHA256, PLANNED, PROTOCOLS, protocol_for
from mtv.eval.suites import SUITES, expand_tasks, unavailable
from mtv.eval.task import TASKS, stable_subset
from mtv.fields import field_docs
from mtv.hashing import canonical_json, sha256_lines


@pytest.mark.parametrize("task", PROTOCOLS)
def test_paper_exists_and_every_field_is_documented(task: str) -> None:
    cls = PROTOCOLS[task]
    assert "paper" in cls.presets
    docs = field_docs(cls)
    assert all(docs[f.name] for f in fields(cls)), [f.name for f in fields(cls) if not docs[f.name]]
    for preset in cls.presets:
        protocol = protocol_for(task, preset)
        assert protocol.id(preset) == f"{task}/{preset}#{protocol.hash[:8]}"
        assert protocol.modified(preset) == []


def test_paper_equals_probe3d_for_correspondence() -> None:
    for task in ("navi", "spair"):
        assert protocol_for(task, "paper").hash == protocol_for(task, "probe3d").hash
        assert protocol_for(task, "centered").hash != protocol_for(task, "paper").hash


def test_a_preset_equals_its_overrides_written_out() -> None:
    written = {"mode": "centered", "statistics": "model", "pairs": "all"}
    assert protocol_for("spair", "paper", written).hash == protocol_for("spair", "centered").hash
    as_text = protocol_for("spair", "paper", {"size": "400", "limit": "7", "mode": "centered"})
    assert as_text.hash == protocol_for("spair", "paper", {"size": 400, "limit": 7, "mode": "centered"}).hash
    assert as_text.modified("paper") == ["limit=7", "mode=centered", "size=400"]


def test_r8_variants_have_hashes_of_their_own() -> None:
    variants = [
        {},
        {"prefix": "a photo of "},
        {"captions": "first5"},
        {"positives": "same_text"},
        {"score": "dual_softmax"},
    ]
    assert len({protocol_for("coco", "paper", v).hash for v in variants}) == 5
    assert protocol_for("coco").hash != protocol_for("coco", "paper", {"split": "val2017"}).hash


def test_list_hashes_equal_the_lists() -> None:
    from mtv.probes.templates import load_class_names, load_templates

    for name, digest in LIST_SHA256.items():
        kind, which = name.split(":")
        lines = load_templates(which) if kind == "templates" else load_class_names(which)
        assert sha256_lines(lines) == digest, name


def test_templates_file_enters_the_hash(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("a {}.\n")
    first = protocol_for("imagenet", "paper", {"templates": str(path)}).hash
    path.write_text("the {}.\n")
    second = protocol_for("imagenet", "paper", {"templates": str(path)})
    assert first != second.hash
    copy = tmp_path / "elsewhere" / "t.txt"
    copy.parent.mkdir()
    copy.write_text("the {}.\n")
    assert protocol_for("imagenet", "paper", {"templates": str(copy)}).hash == second.hash
    assert str(tmp_path) not in str(second.describe("paper"))


@pytest.mark.parametrize(
    ("task", "preset", "values", "named"),
    [
        ("imagnet", "paper", {}, "imagenet"),
        ("spair", "papr", {}, "paper"),
        ("spair", "paper", {"siz": "1"}, "fields of spair: layer"),
        ("spair", "paper", {"size": "big"}, "spair.size: 'big' is not a valid int"),
        ("spair", "paper", {"mode": "middle"}, "probe3d, centered"),
        ("spair", "paper", {"limit": 0}, "spair.limit"),
        ("imagenet", "paper", {"templates": "nope"}, "openai80"),
    ],
)
def test_errors_name_the_field(task: str, preset: str, values: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        protocol_for(task, preset, values).hash  # noqa: B018


def test_suites_expand_and_a_named_task_wins() -> None:
    assert set(TASKS) == set(PROTOCOLS)
    for name, members in SUITES.items():
        chosen = expand_tasks([name])
        assert [c.task for c in chosen] == [t for t in members if t not in PLANNED]
        assert all(c.from_suite and c.suite == name for c in chosen)
        for c in chosen:
            protocol_for(c.task, "paper", c.overrides)
    both = {c.task: c for c in expand_tasks(["knn", "real"])}
    assert not both["knn"].from_suite
    assert both["coco"].from_suite
    with pytest.raises(UsageError, match="paper"):
        expand_tasks(["papr"])


def test_planned_tasks_are_left_out_of_suites_and_refused_by_name() -> None:
    assert not set(PLANNED) & set(PROTOCOLS)
    assert {t for members in SUITES.values() for t in members} <= set(PLANNED) | set(PROTOCOLS)
    assert unavailable(["knn", "mini", "paper"]) == {"vqa": "task not available"}
    assert unavailable(["knn", "real", "nothing"]) == {}
    for ask in (lambda: expand_tasks(["mini", "vqa"]), lambda: protocol_for("vqa")):
        with pytest.raises(UsageError, match="task vqa is not available yet: MMVP, CV-Bench and RealWorldQA"):
            ask()


@given(
    st.dictionaries(st.text(max_size=5), st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text())
)
def test_canonical_json_round_trips_and_ignores_order(value: dict[str, object]) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(dict(reversed(value.items()))) == text


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=40), st.integers(1, 50))
def test_stable_subset_is_even_and_ignores_order(strata: list[str], n: int) -> None:
    ids = [f"{s}{i}" for i, s in enumerate(strata)]
    keep = stable_subset(ids, strata, n)
    assert keep == sorted(set(keep))
    assert len(keep) == min(n, len(ids))
    counts = {s: sum(strata[i] == s for i in keep) for s in set(strata)}
    open_strata = [counts[s] for s in counts if counts[s] < strata.count(s)]
    assert not open_strata or max(counts.values()) - min(open_strata) <= 1
    shuffled = sorted(range(len(ids)), key=lambda i: hash((ids[i], 7)))
    again = stable_subset([ids[i] for i in shuffled], [strata[i] for i in shuffled], n)
    assert {ids[shuffled[i]] for i in again} == {ids[i] for i in keep}
