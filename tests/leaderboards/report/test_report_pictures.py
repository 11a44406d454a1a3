"""Pictures of samples: which are chosen, that they are the files, and what is never read."""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_document import parse
from report_stores import put

from mtv.leaderboards.frame import Stored, load
from mtv.leaderboards.report.build import build_report
from mtv.leaderboards.report.pictures import collect, gallery_html


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three results with 3, 5 and 0 pictures of each kind, of different sizes in bytes."""
    root = tmp_path_factory.mktemp("pictured")
    put(root, "small", "imagenet", pictures=3, side=24)
    put(root, "large", "imagenet", pictures=5, side=96)
    put(root, "none", "imagenet")
    return root


def with_artefacts(stored: Stored, names: list[str]) -> Stored:
    return Stored(path=stored.path, record=dataclasses.replace(stored.record, artefacts=names))


def test_embedded_pictures_are_the_files_beside_the_record(pictured: Path) -> None:
    page, written = build_report(load(pictured))
    images = parse(page).all("img")
    shown = {base64.b64decode(i.attrs["src"].partition(",")[2]) for i in images}
    assert shown == {p.read_bytes() for p in pictured.glob("**/*.webp")}
    assert len(images) == written.pictures == 16
    assert written.left_out == 0
    assert "pictures of samples are in this page" not in page
    assert all(i.attrs["loading"] == "lazy" for i in images)
    assert {(i.attrs["width"], i.attrs["height"]) for i in images} == {("32", "24"), ("104", "96")}


def test_best_stand_before_worst_in_the_order_of_their_rank(pictured: Path) -> None:
    records = load(pictured, models=["large"])
    alts = [i.attrs["alt"] for i in parse(gallery_html(collect(records)[records[0].path], title="t")).all("img")]
    ranks = [f"{kind} sample {k}" for kind in ("best", "worst") for k in range(1, 6)]
    assert [a.split(": ")[1].split(",")[0] for a in alts] == ranks


@settings(max_examples=40, deadline=None)
@given(budget=st.integers(0, 60_000))
def test_the_budget_holds_and_everything_is_accounted_for(pictured: Path, budget: int) -> None:
    records = load(pictured)
    galleries = collect(records, budget / 1e6)
    assert sum(len(p.data) for g in galleries.values() for p in g.shown) <= budget
    for s in records:
        named = len(s.record.artefacts)
        assert (s.path in galleries) == bool(named)
        if named:
            g = galleries[s.path]
            assert len(g.shown) + g.over_budget == g.total == named


def test_a_small_budget_is_shared_in_rounds(pictured: Path) -> None:
    files = {p.parent.parent.parent.name.split("-")[0]: p for p in pictured.glob("**/best-00.webp")}
    budget = sum(p.stat().st_size for p in files.values())
    galleries = collect(load(pictured), budget / 1e6)
    first = {p.kind for g in galleries.values() for p in g.shown if p.turn == 0}
    assert {len(g.shown) > 0 for g in galleries.values()} == {True}
    assert "best" in first


def test_what_is_left_out_is_said(pictured: Path) -> None:
    page, written = build_report(load(pictured), budget_mb=0)
    document = parse(page)
    assert (written.pictures, written.left_out) == (0, 16)
    assert not document.all("img")
    assert "0 of 16 pictures of samples are in this page (0.0 MB of at most 0 MB)" in document.text
    assert "10 of 10 left out to keep the page small" in document.text


def test_missing_and_damaged_files_are_counted_not_fatal(pictured: Path, tmp_path: Path) -> None:
    record = put(tmp_path, "broken", "imagenet", pictures=3)
    files = sorted(tmp_path.glob("**/*.webp"))
    files[0].unlink()
    files[1].write_bytes(b"RIFF nothing of the kind")
    files[2].write_bytes(files[3].read_bytes()[:40])
    gallery = collect(load(tmp_path))[record]
    assert (len(gallery.shown), gallery.missing, gallery.unreadable) == (3, 1, 2)
    text = parse(gallery_html(gallery, title="t")).text
    assert "1 of 6 missing beside the record; 2 of 6 unreadable" in text


@pytest.mark.parametrize(
    "name", ["../../secret.webp", "/etc/hostname", "x/../../../secret.webp", "pictures/secret.png", "secret.html"]
)
def test_a_record_from_elsewhere_cannot_reach_other_files(tmp_path: Path, name: str) -> None:
    put(tmp_path, "vit", "imagenet", pictures=1)
    stored = load(tmp_path)[0]
    good = stored.path.parent / stored.record.artefacts[0]
    for place in (tmp_path / "secret.webp", tmp_path.parent / "secret.webp", stored.path.parent / "secret.html"):
        place.write_bytes(good.read_bytes())
    (stored.path.parent / "pictures").mkdir()
    (stored.path.parent / "pictures" / "secret.png").write_bytes(good.read_bytes())
    gallery = collect([with_artefacts(stored, [name])])[stored.path]
    assert not gallery.shown
    assert gallery.unreadable == 1


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    put(tmp_path / "store", "vit", "imagenet", pictures=1)
    stored = load(tmp_path / "store")[0]
    inside = stored.path.parent / stored.record.artefacts[0]
    outside = tmp_path / "outside.webp"
    outside.write_bytes(inside.read_bytes())
    inside.unlink()
    inside.symlink_to(outside)
    gallery = collect([stored])[stored.path]
    assert [p.kind for p in gallery.shown] == ["worst"]


def test_names_of_other_tasks_are_kinds_of_their_own(pictured: Path, tmp_path: Path) -> None:
    put(tmp_path, "vit", "imagenet", pictures=1)
    stored = load(tmp_path)[0]
    folder = stored.path.parent / Path(stored.record.artefacts[0]).parent
    (folder / "features.webp").write_bytes((folder / "best-00.webp").read_bytes())
    names = [*stored.record.artefacts, f"{folder.name}/features.webp"]
    gallery = collect([with_artefacts(stored, names)])[stored.path]
    assert sorted(p.kind for p in gallery.shown) == ["best", "features", "worst"]
    assert parse(gallery_html(gallery, title="<i>")).all("p", class_="kind")[-1].text == "features"
