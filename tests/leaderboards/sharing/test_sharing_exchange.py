"""Bundles, CSV and model cards: what goes out comes back, and what was touched on the way is refused by name."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharing_stores import add, add_failure, content, edited, fingerprint, run, snapshot

from mtv.errors import CacheError, UsageError
from mtv.eval.protocols import PROTOCOLS, protocol_for
from mtv.hashing import sha256_json
from mtv.leaderboards.compare import compare, select_model
from mtv.leaderboards.frame import load
from mtv.leaderboards.sharing.bundle import bundle_problems, make_bundle, read_bundle
from mtv.leaderboards.sharing.checks import moment, protocol_hash
from mtv.leaderboards.sharing.model_index import model_index
from mtv.leaderboards.sharing.yaml_text import yaml_text
from mtv.results import TaskResult, find_records

HEAVY = ("torch", "pandas", "transformers", "timm", "open_clip", "huggingface_hub", "scipy", "matplotlib")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two models, three tasks, a subset, a limited run, a failure."""
    root = tmp_path / "store"
    add(root, 30, preset="paper", pictures=1)
    add(root, 20, task="coco", label="subset (40 of 5000)")
    add(root, 25, task="nyuv2", limit=40)
    add(root, 10, model="other", preset="paper", pictures=1)
    add_failure(root, loaded=True, model="third")
    return root


def test_the_protocol_hash_follows_from_every_record() -> None:
    for task, cls in PROTOCOLS.items():
        for preset in cls.presets:
            for limit in (None, 7):
                protocol = protocol_for(task, preset, {"limit": limit})
                described = json.loads(json.dumps(protocol.describe(preset)))
                assert protocol_hash(described) == protocol.hash, (task, preset)


def test_export_and_import_give_equal_records(store: Path, tmp_path: Path) -> None:
    bundle, out = tmp_path / "mine.json", tmp_path / "out"
    code, _, err = run("export", "--results", store, "--to", "json", "--out", bundle)
    assert code == 0
    assert "left out: imagenet/mini" in err, "the failed one is named"
    before = {r.key: r for _, r in find_records(store) if r.status != "failed"}
    assert run("check", bundle)[0] == 0
    assert run("import", bundle, "--out", out)[0] == 0
    after = {r.key: r for _, r in find_records(out)}
    assert after.keys() == before.keys()
    for key, record in after.items():
        origin = record.run["imported_from"]
        table = before[key].samples
        assert table is not None
        assert origin == {
            "bundle": "mine.json",
            "sha256": json.loads(bundle.read_text())["sha256"],
            "samples_sha256": table["sha256"],
        }
        run_part = {k: v for k, v in record.run.items() if k != "imported_from"}
        assert replace(record, run=run_part) == replace(before[key], samples=None, artefacts=[])
    first = snapshot(out)
    assert run("import", bundle, "--out", out)[0] == 0
    assert snapshot(out) == first


def test_an_imported_result_keeps_its_first_origin_and_yields_to_the_original(store: Path, tmp_path: Path) -> None:
    for source, name, out in ((store, "one.json", "o1"), (tmp_path / "o1", "two.json", "o2")):
        assert run("export", "--results", source, "--to", "json", "--out", tmp_path / name)[0] == 0
        assert run("import", tmp_path / name, "--out", tmp_path / out)[0] == 0
    assert content(tmp_path / "o1") == content(tmp_path / "o2")
    assert run("merge", store, "--out", tmp_path / "o2")[0] == 0
    assert {k: v for k, v in content(tmp_path / "o2").items() if "failed" not in v} == {
        k: v for k, v in content(store).items() if "failed" not in v
    }


def test_a_paired_comparison_with_an_imported_result_says_why_not(store: Path, tmp_path: Path) -> None:
    run("export", "--results", store, "--to", "json", "-t", "imagenet", "--protocol", "paper", "--out", tmp_path / "b")
    run("import", tmp_path / "b", "--out", tmp_path / "out")
    records = load(tmp_path / "out")
    with pytest.raises(CacheError, match="no per-sample table"):
        compare(select_model(records, "vit"), select_model(records, "other"))
    records = load(store)
    assert compare(select_model(records, "vit"), select_model(records, "other")).rows


def test_an_import_that_contradicts_the_store_is_a_conflict(store: Path, tmp_path: Path) -> None:
    out, bundle = tmp_path / "out", tmp_path / "b.json"
    add(out, 31, preset="paper")
    run("export", "--results", store, "--to", "json", "-m", "vit", "-t", "imagenet", "--out", bundle)
    before = snapshot(out)
    code, _, err = run("import", bundle, "--out", out)
    assert code == 1
    assert "b.json results[0]: imagenet/top1 75 percent" in err
    assert snapshot(out) == before


def metric(record: dict[str, Any]) -> dict[str, Any]:
    found = record["metrics"]["imagenet/top1"]
    assert isinstance(found, dict)
    return found


RECORD: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "version": (lambda r: r.update(schema_version=9), "schema_version: 9, this mtv reads 1"),
    "failed": (lambda r: r.update(status="failed"), "status: 'failed'"),
    "created": (lambda r: r.update(created="today"), "created: 'today'"),
    "upwards": (lambda r: r.update(task="../up"), "task: expected letters"),
    "preset": (lambda r: r["protocol"].update(preset="../../x"), "protocol.preset: expected letters"),
    "no protocol": (lambda r: r.pop("protocol"), "protocol: missing"),
    "hash": (
        lambda r: r["protocol"].update(hash=fingerprint("x"), id=f"imagenet/paper#{fingerprint('x')[:8]}"),
        "protocol.hash:",
    ),
    "params": (lambda r: r["protocol"]["params"].update(classes="all"), "protocol.hash:"),
    "id": (lambda r: r["protocol"].update(id="imagenet/mini#1"), "protocol.id:"),
    "fingerprint": (lambda r: r["model"].update(fingerprint="../../../x"), "model.fingerprint: expected a SHA-256"),
    "data": (lambda r: r["data"].update(fingerprint=None), "data.fingerprint: expected text"),
    "label": (lambda r: r["data"].pop("label"), "data.label: missing"),
    "metric name": (lambda r: r["metrics"].update({"top1": metric(r)}), "metrics[top1]: the name does not begin"),
    "above": (lambda r: metric(r).update(value=100.5), "metrics[imagenet/top1].value: 100.5 is outside [0, 100]"),
    "below": (lambda r: metric(r).update(value=-1.0), "metrics[imagenet/top1].value: -1.0 is outside"),
    "text": (lambda r: metric(r).update(value="75"), "metrics[imagenet/top1].value: expected a number"),
    "nan": (lambda r: metric(r).update(value=math.nan), "metrics[imagenet/top1].value: expected a number"),
    "unit": (lambda r: metric(r).update(unit="points?"), "metrics[imagenet/top1].unit: 'points?'"),
    "interval": (lambda r: metric(r).update(ci95=[1.0]), "metrics[imagenet/top1].ci95: expected two numbers"),
    "around": (lambda r: metric(r).update(ci95=[1.0, 2.0]), "metrics[imagenet/top1].ci95: [1.0, 2.0] does not"),
    "order": (lambda r: metric(r).update(ci95=[80.0, 70.0]), "metrics[imagenet/top1].ci95: 80.0 is above 70.0"),
    "n": (lambda r: metric(r).update(n=-3), "metrics[imagenet/top1].n: -3 is below 0"),
    "clusters": (lambda r: metric(r).pop("n_clusters"), "metrics[imagenet/top1].n_clusters: missing"),
    "recipe": (lambda r: metric(r)["recipe"].update(kind="ratio", column=""), "metrics[imagenet/top1].recipe:"),
    "extra": (lambda r: r.update(surprise=1), ": not a result record"),
}


@pytest.mark.parametrize("kind", RECORD)
def test_every_wrong_field_of_a_record_is_named_and_nothing_written(store: Path, tmp_path: Path, kind: str) -> None:
    change, expected = RECORD[kind]
    bundle = make_bundle(load(store, models=["vit"], tasks=["imagenet"]))
    record = bundle["results"][0]["record"]
    change(record)
    # The hashes are made anew, so that they hide nothing: the field itself must be seen.
    if kind != "nan":
        bundle["results"][0]["sha256"] = sha256_json(record)
        bundle["sha256"] = sha256_json({k: v for k, v in bundle.items() if k != "sha256"})
    path = tmp_path / "b.json"
    path.write_text(json.dumps(bundle), encoding="utf-8")
    code, _, err = run("import", path, "--out", tmp_path / "out")
    assert code == 1
    separator = "" if expected.startswith(":") else "."
    assert f"error: b.json: results[0].record{separator}{expected}" in err
    assert not (tmp_path / "out").exists()
    assert run("check", path)[0] == 1


BUNDLE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "format": (lambda b: b.update(format="zip"), "format: 'zip'"),
    "version": (lambda b: b.update(schema_version=2), "schema_version: 2, this mtv reads 1"),
    "no hash": (lambda b: b.pop("sha256"), "sha256: missing"),
    "no results": (lambda b: b.update(results={}), "results: expected a list"),
    "item": (lambda b: b["results"].append(1), "results[2]: expected an object"),
    "one edited": (lambda b: b["results"][1]["record"]["env"].update(torch="9"), "results[1].sha256: does not match"),
    "one dropped": (lambda b: b["results"].pop(), "sha256: does not match the content"),
    "writer": (lambda b: b.update(mtv="9.9"), "sha256: does not match the content"),
}


@pytest.mark.parametrize("kind", BUNDLE)
def test_a_bundle_that_was_touched_is_refused(store: Path, kind: str) -> None:
    change, expected = BUNDLE[kind]
    bundle = make_bundle(load(store, tasks=["imagenet"], presets=["paper"]))
    assert bundle_problems(bundle) == []
    touched = copy.deepcopy(bundle)
    change(touched)
    assert bundle_problems(touched)[0].startswith(expected)


def test_files_that_are_no_bundle_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    for text in ("", "{", "[]", '{"format": 1}', "[" * 200_000):
        path.write_text(text)
        with pytest.raises(CacheError, match=r"b\.json: "):
            read_bundle(path)
    with pytest.raises(CacheError, match="No such file"):
        read_bundle(tmp_path / "none.json")


def test_sums_and_errors_may_pass_a_hundred_per_cent(store: Path) -> None:
    bundle = make_bundle(load(store, tasks=["coco"]))
    record = bundle["results"][0]["record"]
    assert record["metrics"]["coco/rsum"]["value"] == 75.0
    for value, fine in ((180.0, True), (201.0, False)):
        record["metrics"]["coco/rsum"].update(value=value, ci95=None)
        problems = [p for p in bundle_problems(bundle) if "rsum" in p]
        assert bool(problems) != fine, problems


def test_csv_has_one_row_per_metric(store: Path) -> None:
    code, out, _ = run("export", "--results", store, "--to", "csv")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert {(r["model"], r["metric"]): float(r["value"]) for r in rows} == {
        ("vit", "imagenet/top1"): 75.0,
        ("vit", "coco/t2i_r1"): 50.0,
        ("vit", "coco/i2t_r1"): 25.0,
        ("vit", "coco/rsum"): 75.0,
        ("vit", "nyuv2/rmse"): 25 / 40,
        ("other", "imagenet/top1"): 25.0,
    }
    assert {r["protocol_hash"] for r in rows if r["metric"] == "imagenet/top1"} == {protocol_for("imagenet").hash}


def test_a_model_card_reads_back(store: Path) -> None:
    yaml = pytest.importorskip("yaml")
    code, out, _ = run(
        "export", "--results", store, "--to", "model-index", "-m", "vit", "--source-url", "https://example.org/r"
    )
    assert code == 0
    document = yaml.safe_load(out)
    assert document == model_index(select_model(load(store), "vit"), "vit", source_url="https://example.org/r")
    ((index,), *_) = document.values()
    assert index["name"] == "vit"
    imagenet, coco, depth = index["results"]
    assert imagenet["task"] == {"type": "zero-shot-image-classification", "name": "Zero-shot classification"}
    assert (imagenet["dataset"]["type"], imagenet["dataset"]["name"]) == ("imagenet-1k", "ImageNet-1k")
    assert imagenet["dataset"]["args"] == {"fingerprint": fingerprint("imagenetset")}
    assert [(m["type"], m["value"]) for m in coco["metrics"]] == [("recall_at_1", 50.0), ("recall_at_1", 25.0)]
    assert coco["dataset"]["type"] == "coco-karpathy-layout", "a subset never stands beside the full set"
    assert "subset (40 of 5000)" in coco["dataset"]["name"]
    assert "limit 40" in depth["dataset"]["name"]
    assert depth["metrics"][0]["name"] == "NYUv2 RMSE [m] ↓"
    assert all(r["source"] == {"name": "mtv-eval", "url": "https://example.org/r"} for r in index["results"])
    assert all("verified" not in m for r in index["results"] for m in r["metrics"])


def test_the_hub_library_understands_the_card_and_keeps_entries_apart(tmp_path: Path) -> None:
    data = pytest.importorskip("huggingface_hub.repocard_data")
    add(tmp_path, 30, preset="paper")
    add(tmp_path, 20, preset="paper", data="another set")
    add(tmp_path, 10, preset="fast")
    index = model_index(load(tmp_path), "vit")["model-index"]
    name, found = data.model_index_to_eval_results(index)
    assert name == "vit"
    assert sorted(r.metric_value for r in found) == [25.0, 50.0, 75.0]
    assert data.eval_results_to_model_index(name, found) == index, "grouped again by the library, it is the same card"
    card = data.ModelCardData(model_name=name, eval_results=found)
    assert card.to_dict()["model-index"] == index


def test_a_card_without_a_headline_value_is_refused(store: Path) -> None:
    path = next(p for p, r in find_records(store) if r.model["alias"] == "other")
    edited(path, lambda r: metric(r).update(value=None, ci95=None, n=0))
    with pytest.raises(UsageError, match="no headline value"):
        model_index(load(store, models=["other"]), "other")


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    # PyYAML reads neither lone surrogates nor text that is no character.
    | st.text(st.characters(exclude_categories=("Cs", "Cn"), exclude_characters="\ufeff"), max_size=12)
    | st.sampled_from(["no", "1e5", "2026-11-22", "a: b", "- a", "# a", "12:30:00", "0x1f", "~", "null", "a  b", "= "]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abn y:", max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["a", "n", "model-index", "on"]), PLAIN, min_size=1))
def test_yaml_reads_back_as_it_was(value: dict[str, Any]) -> None:
    yaml = pytest.importorskip("yaml")
    text = yaml_text(value)
    assert yaml.safe_load(text) == value, text


def test_yaml_refuses_what_it_cannot_say() -> None:
    with pytest.raises(TypeError, match="no place in a model card"):
        yaml_text({"a": Path("x")})
    with pytest.raises(ValueError, match="JSON compliant"):
        yaml_text({"a": math.inf})


def test_times_are_compared_across_zones() -> None:
    assert moment("2026-01-01T00:00:00Z") == moment("2026-01-01T00:00:00") == moment("2026-01-01T02:00:00+02:00")


def test_an_incomplete_result_is_not_exported(store: Path) -> None:
    for path, record in find_records(store):
        if record.model["alias"] == "other":
            path.with_suffix(".samples.parquet").write_bytes(b"")
    code, out, err = run("export", "--results", store, "--to", "csv")
    assert code == 0
    assert "of other lacks its sample table" in err
    assert "other" not in out
    code, _, err = run("export", "--results", store, "--to", "csv", "-m", "other")
    assert code == 2
    assert "no result to export" in err


def test_records_without_a_table_are_whole(tmp_path: Path) -> None:
    add(tmp_path / "s", 10, table=False)
    ((_, record),) = find_records(tmp_path / "s")
    assert isinstance(record, TaskResult)
    assert len(make_bundle(load(tmp_path / "s"))["results"]) == 1


def test_the_commands_import_nothing_heavy(store: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from mtv.command_line import invoke; from mtv.eval.commands.results_store import results as r\n"
        f"store, out = {str(store)!r}, {str(tmp_path / 'o')!r}\n"
        "codes = [invoke(r, ['merge', store, '--out', out], name='r'), invoke(r, ['import', out + '/b', '--out', out],"
        " name='r'), *(invoke(r, ['export', '--results', out, '--to', to, '-m', 'vit'], name='r')"
        " for to in ('csv', 'json', 'model-index', 'community'))]\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], codes, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.splitlines()[-1] == "[] [0, 1, 0, 0, 0, 0]", done.stderr
