"""The community's files: every committed one is valid, and everything that must not be committed is refused."""

from __future__ import annotations

import copy
import datetime
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sharing_stores import add, edited, fingerprint, run

from mtv.errors import UsageError
from mtv.eval.protocols import protocol_for
from mtv.leaderboards.community import community
from mtv.leaderboards.community.community import CommunityValue, check_files, community_rows, submissions
from mtv.leaderboards.community.privacy import leaks
from mtv.leaderboards.community.submission import (
    MAX_KB,
    check_submission,
    file_name,
    make_submission,
    submission_problems,
)
from mtv.leaderboards.frame import load
from mtv.leaderboards.published import Published

FOLDER = Path(__file__).resolve().parents[3] / "leaderboards" / "community"
TODAY = datetime.date(2026, 11, 22)


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    """A valid submission of two tasks."""
    add(tmp_path / "store", 30, model="My ViT", preset="paper", spec="hf:org/my-vit")
    add(tmp_path / "store", 20, model="My ViT", task="coco", label="subset (40 of 5000)", spec="hf:org/my-vit")
    return make_submission(load(tmp_path / "store"), date=TODAY, link="https://example.org/my-vit", handle="me")


@pytest.fixture
def write(tmp_path: Path, document: dict[str, Any]) -> Callable[..., Path]:
    """The valid submission in a file, after a change."""

    def to_file(change: Callable[[dict[str, Any]], object] = lambda d: None, name: str = "") -> Path:
        value = copy.deepcopy(document)
        change(value)
        path = tmp_path / (name or f"my-vit-{fingerprint('My ViTw')[:8]}.json")
        path.write_text(json.dumps(value), encoding="utf-8")
        return path

    return to_file


def test_every_committed_submission_is_valid() -> None:
    assert {p: found for p, found in check_files(submissions(FOLDER)).items() if found} == {}
    others = {p.name for p in FOLDER.iterdir() if p.suffix not in (".json", ".py")} - {"__pycache__"}
    assert others == {"README.md"}, "a submission is a .json file in this folder"
    assert community_rows() == community_rows(FOLDER)


def test_the_readme_shows_a_valid_example(tmp_path: Path) -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", text, flags=re.DOTALL)
    (name,) = re.findall(r"as `(\S+\.json)`", text)
    path = tmp_path / name
    path.write_text(example, encoding="utf-8")
    assert check_submission(path) == []
    assert "made-up" in text
    stated = json.loads(example)["results"][0]["protocol"]["hash"]
    assert stated == protocol_for("imagenet", "paper").hash, "the example is of the present protocol"
    assert f"at most {MAX_KB} KB" in text


def test_export_writes_a_file_that_passes_its_check(tmp_path: Path) -> None:
    store, folder = tmp_path / "store", tmp_path / "community"
    folder.mkdir()
    add(store, 30, model="My ViT", preset="paper")
    arguments = ("--results", store, "--to", "community", "-m", "My ViT", "--handle", "me", "--submitter", "M. E.")
    assert run("export", *arguments, "--out", folder)[0] == 0
    (path,) = folder.iterdir()
    assert path.name == f"my-vit-{fingerprint('My ViTw')[:8]}.json"
    assert run("check", path)[0] == 0
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["submitter"] == {"name": "M. E.", "handle": "me"}
    (result,) = document["results"]
    assert (result["metric"], result["value"], result["n"], result["label"]) == ("imagenet/top1", 75.0, 40, "")
    assert result["command"].startswith("mtv-eval run -m")


def test_a_local_spec_needs_a_link(tmp_path: Path) -> None:
    for k, spec in enumerate(("timm:vit@w.safetensors", "hf:./export", "mtv:runs/a", "python:my.py:build")):
        add(tmp_path / f"s{k}", 30, spec=spec)
        records = load(tmp_path / f"s{k}")
        with pytest.raises(UsageError, match=r"model\.link: needed"):
            make_submission(records, date=TODAY)
        assert make_submission(records, date=TODAY, link="https://example.org/w")["model"]["spec"] == spec
    for k, spec in enumerate(("hf:org/name@v1.0", "timm:vit_tiny@random?seed=0", "open_clip:ViT-B-16/openai")):
        add(tmp_path / f"h{k}", 30, spec=spec)
        assert make_submission(load(tmp_path / f"h{k}"), date=TODAY)["model"]["link"] is None


def first(document: dict[str, Any]) -> dict[str, Any]:
    found = document["results"][0]
    assert isinstance(found, dict)
    return found


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "form": (lambda d: d.update(format="x"), "format: 'x'"),
    "version": (lambda d: d.update(schema_version=2), "schema_version: 2, this mtv reads 1"),
    "unknown": (lambda d: d.update(extra=1), "extra: unknown"),
    "no date": (lambda d: d.pop("date"), "date: missing"),
    "date": (lambda d: d.update(date="22.11.2026"), "date: '22.11.2026'"),
    "no model": (lambda d: d.pop("model"), "model: missing"),
    "name": (lambda d: d["model"].update(name=" "), "model.name: empty"),
    "model fingerprint": (lambda d: d["model"].update(fingerprint="abc"), "model.fingerprint: expected a SHA-256"),
    "http": (lambda d: d["model"].update(link="http://example.org"), "model.link: 'http://example.org'"),
    "intranet": (lambda d: d["model"].update(link="https://gpu7/x"), "model.link: 'https://gpu7/x'"),
    "who": (lambda d: d["submitter"].update(mail="x"), "submitter.mail: unknown"),
    "who type": (lambda d: d["submitter"].update(name=3), "submitter.name: expected text"),
    "empty": (lambda d: d.update(results=[]), "results: none"),
    "too high": (lambda d: first(d).update(value=175.0), "results[0].value: 175.0 is outside [0, 100]"),
    "null": (lambda d: first(d).update(value=None, ci95=None), "results[0].value: null"),
    "bool": (lambda d: first(d).update(value=True), "results[0].value: expected a number"),
    "interval": (lambda d: first(d).update(ci95=[10.0, 20.0]), "results[0].ci95: [10.0, 20.0] does not contain"),
    "order": (lambda d: first(d).update(ci95=[90.0, 60.0]), "results[0].ci95: 90.0 is above 60.0"),
    "n": (lambda d: first(d).update(n=-1), "results[0].n: -1 is below 0"),
    "n type": (lambda d: first(d).update(n=1.5), "results[0].n: expected a whole number"),
    "unit": (lambda d: first(d).update(unit="furlong"), "results[0].unit: 'furlong'"),
    "metric": (lambda d: first(d).update(metric="top1"), "results[0].metric: 'top1'"),
    "other task": (lambda d: first(d).update(metric="knn/top1"), "results[0].protocol.task: 'imagenet'"),
    "protocol edited": (lambda d: first(d)["protocol"]["params"].update(limit=5), "results[0].protocol.hash:"),
    "protocol id": (lambda d: first(d)["protocol"].update(id="imagenet/paper#0"), "results[0].protocol.id:"),
    "data": (lambda d: first(d)["data"].update(fingerprint=""), "results[0].data.fingerprint: expected"),
    "command": (lambda d: first(d).update(command="rm -r x"), "results[0].command:"),
    "path": (lambda d: first(d).update(command="mtv-eval run --data /home/me/x"), "results[0].command: shows an absol"),
    "host": (lambda d: d["submitter"].update(handle="me on node3.internal"), "submitter.handle: shows a host name"),
    "twice": (lambda d: d["results"].append(d["results"][0]), "results[3]: imagenet/top1 stands twice"),
    "not object": (lambda d: d["results"].append(3), "results[3]: expected an object"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_every_wrong_field_is_named(write: Callable[..., Path], kind: str) -> None:
    change, expected = WRONG[kind]
    assert check_submission(write()) == []
    found = check_submission(write(change))
    assert any(p.startswith(expected) for p in found), found


def test_file_name_size_and_form_are_checked(write: Callable[..., Path], tmp_path: Path) -> None:
    stem = f"my-vit-{fingerprint('My ViTw')[:8]}"
    assert check_submission(write(name=f"{stem}-somebody.json")) == []
    for name in ("result.json", f"{stem}x.json", f"{stem.upper()}.json", f"{stem}-Me.json"):
        (problem,) = check_submission(write(name=name))
        assert problem.startswith(f"file name: expected {stem}.json")
    large = write(lambda d: first(d).update(label="x" * MAX_KB * 1024))
    assert check_submission(large) == [f"the file is larger than {MAX_KB} KB"]
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    assert check_submission(broken)[0].startswith("not JSON")
    assert run("check", broken)[0] == 1


def test_no_result_stands_in_two_files(write: Callable[..., Path]) -> None:
    one, two = write(), write(lambda d: d["results"].pop(), name=f"my-vit-{fingerprint('My ViTw')[:8]}-b.json")
    found = check_files([one, two])
    assert found[one] == []
    assert len(found[two]) == 2, "one per task that both have"
    assert all(f"stands in {one.name} already" in problem for problem in found[two])
    code, out, _ = run("check", one, two)
    assert (code, out.count("stands in")) == (1, 2)
    with pytest.raises(UsageError, match="stands in"):
        community.refuse(found)
    edited(two, lambda d: [r["data"].update(fingerprint=fingerprint("another set")) for r in d["results"]])
    assert check_files([one, two]) == {one: [], two: []}


def test_rows_are_published_values_with_their_setting(write: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write().rename(folder / write().name)
    rows = community_rows(folder)
    assert [(r.metric, r.value, r.printed, r.measured_on) for r in rows] == [
        ("imagenet/top1", 75.0, "75.00", ""),
        ("coco/t2i_r1", 50.0, "50.00", "subset (40 of 5000)"),
        ("coco/i2t_r1", 25.0, "25.00", "subset (40 of 5000)"),
    ]
    assert all(isinstance(r, (CommunityValue, Published)) for r in rows)
    assert rows[0].setting == (protocol_for("imagenet", "paper").hash, fingerprint("imagenetset"))
    assert rows[0].label == "community: My ViT (me, 2026-11-22)"
    assert rows[0].ci95 is not None
    assert rows[0].ci95[0] < 75 < rows[0].ci95[1]
    assert rows[0].protocol["templates"] == "openai80"
    (folder / rows[0].table).with_suffix(".json").write_text("[]")
    with pytest.raises(UsageError, match=r"community/community\.json"):
        community_rows(folder)


def test_what_shows_a_machine_is_seen_and_nothing_else() -> None:
    for text in ("--data /data/sets/x", "~/x", "C:\\Users\\me", "http://a.b/c", "10.0.3.7", "on localhost", "n1.lan"):
        assert list(leaks({"a": [text]})), text
        assert {field for field, _ in leaks({"a": [text]})} == {"a[0]"}
    for text in (
        "mtv-eval run -m hf:org/name@v1.0 -t coco --data DATA --set coco.prefix='a photo of '",
        "timm:vit_base_patch16_224.augreg_in21k_ft_in1k?mean=0.5,0.5,0.5",
        "text→image R@1, mean of 1/2/5 cm",
        "images/validation/* and annotations/validation/*",
        "open_clip:ViT-B-16/openai; torch 2.9.0",
        "hf:./export and mtv:runs/b16/step_1",
    ):
        assert not list(leaks(text)), text


def test_file_names_are_plain() -> None:
    assert file_name("Siglip 2: L/16 (Größe)", "0123456789") == "siglip-2-l-16-gr-e-01234567"
    assert file_name("///", "0123456789") == "model-01234567"


def test_a_failed_export_says_what_is_missing(tmp_path: Path) -> None:
    add(tmp_path / "s", 30)
    assert run("export", "--results", tmp_path / "s", "--to", "community")[0] == 2
    code, _, err = run("export", "--results", tmp_path / "s", "--to", "csv", "--link", "https://x.org")
    assert code == 2
    assert "--link does not apply to --to csv" in err
    assert submission_problems([]) == ["expected an object"]
