"""SPair-layout reader: generated sets, and the real keypoint pairs in that layout."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtv.errors import UsageError
from mtv.eval.datasets.spair import CATEGORIES, INFO, PAIRS, inspect

SIZES = {"2008_000001": (50, 37), "2008_000002": (37, 50), "2009_000003": (60, 60)}
KPS = {
    "2008_000001": [[5, 6], None, [20.5, 30]],
    "2008_000002": [None, [7, 8], [9, 10]],
    "2009_000003": [[1, 2], [3, 4], [50, 6]],
}


def build(root: Path, categories: tuple[str, ...] = ("cat", "train"), *, colon: str = ":", layout: bool = True) -> Path:
    """Three pictures and all six ordered pairs per category."""
    stems, number = [], 0
    (root / "PairAnnotation" / "test").mkdir(parents=True)
    for category in categories:
        for folder in ("JPEGImages", "ImageAnnotation"):
            (root / folder / category).mkdir(parents=True)
        for name, size in SIZES.items():
            Image.new("RGB", size).save(root / "JPEGImages" / category / f"{name}.jpg")
            annotation = {
                "filename": f"{name}.jpg",
                "image_width": size[0],
                "image_height": size[1],
                "category": category,
                "bndbox": [1, 2, 30, 33],
                "kps": {str(i): p for i, p in enumerate(KPS[name])},
            }
            (root / "ImageAnnotation" / category / f"{name}.json").write_text(json.dumps(annotation))
        for source, target in permutations(SIZES, 2):
            number += 1
            stem = f"{number:06d}-{source}-{target}:{category}"
            stems.append(stem)
            pair = {
                "filename": stem,
                "category": category,
                "src_imname": f"{source}.jpg",
                "trg_imname": f"{target}.jpg",
                "src_imsize": [*SIZES[source], 3],
                "trg_imsize": [*SIZES[target], 3],
                "viewpoint_variation": number % 3,
            }
            file = root / "PairAnnotation" / "test" / f"{stem.replace(':', colon)}.json"
            file.write_text(json.dumps(pair))
    for kind in ("large", "small") if layout else ():
        (root / "Layout" / kind).mkdir(parents=True)
        kept = stems if kind == "large" else stems[::2]
        (root / "Layout" / kind / "test.txt").write_text("\n".join(reversed(kept)) + "\n")
    return root


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Apply `change` to a JSON file."""
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def test_items(tmp_path: Path) -> None:
    build(tmp_path / "SPair-71k")
    report, data = inspect(tmp_path)
    assert data is not None
    assert report.verdict == "ok-but"
    assert report.label == "subset (12 of 12234)"
    assert report.found == {"pairs": 12, "categories": 2, "images": 6}
    assert data.categories == ("cat", "train")
    assert [p.id[:6] for p in data.pairs] == [f"{i:06d}" for i in range(1, 13)]
    assert data.pairs[1].id == "000002-2008_000001-2009_000003:cat"
    assert (data.pairs[1].source, data.pairs[1].target) == ("cat/2008_000001", "cat/2009_000003")
    assert [p.viewpoint for p in data.pairs] == [i % 3 for i in range(1, 13)]
    assert list(data.images) == list(data.annotations) == sorted(data.images)
    assert data.images["train/2009_000003"].name == "JPEGImages/train/2009_000003.jpg"
    assert data.annotations["cat/2008_000001"].bbox == (1.0, 2.0, 30.0, 33.0)


def test_s8_missing_keypoint_keeps_its_row_and_sizes_are_per_picture(tmp_path: Path) -> None:
    _, data = inspect(build(tmp_path))
    assert data is not None
    landscape, portrait = data.annotations["cat/2008_000001"], data.annotations["cat/2008_000002"]
    assert (landscape.size, portrait.size) == ((50, 37), (37, 50))
    np.testing.assert_array_equal(landscape.keypoints, [[5, 6], [np.nan, np.nan], [20.5, 30]])
    np.testing.assert_array_equal(portrait.keypoints, [[np.nan, np.nan], [7, 8], [9, 10]])
    shared = ~np.isnan(landscape.keypoints[:, 0]) & ~np.isnan(portrait.keypoints[:, 0])
    np.testing.assert_array_equal(shared, [False, False, True])


def test_other_number_of_keypoints_is_padded(tmp_path: Path) -> None:
    root = build(tmp_path)
    edit(root / "ImageAnnotation/cat/2008_000001.json", lambda a: a["kps"].update({"3": [1, 1]}))
    _, data = inspect(root)
    assert data is not None
    assert {len(a.keypoints) for a in data.annotations.values() if a.category == "cat"} == {4}
    assert {len(a.keypoints) for a in data.annotations.values() if a.category == "train"} == {3}
    assert np.isnan(data.annotations["cat/2008_000002"].keypoints[3]).all()


def test_colon_underscore_and_no_layout_give_the_same_set(tmp_path: Path) -> None:
    reports = []
    for number, (colon, layout) in enumerate([(":", True), ("_", True), (":", False), ("_", False)]):
        root = build(tmp_path / str(number), colon=colon, layout=layout)
        if colon == "_":  # whoever renamed the files may have renamed the field or the list as well
            file = sorted((root / "PairAnnotation/test").iterdir())[0]
            edit(file, lambda p: p.update(filename=p["filename"].replace(":", "_")))
            (root / "PairAnnotation/test/._x.json").write_text("hidden")
        report, data = inspect(root)
        assert data is not None, report.problems
        assert data.pairs[0].id == "000001-2008_000001-2008_000002:cat"
        reports.append((report.fingerprint, data.pairs, report.found))
    assert all(r == reports[0] for r in reports)


def test_small_list(tmp_path: Path) -> None:
    root = build(tmp_path)
    report, data = inspect(root, layout="small")
    assert data is not None
    assert [p.id[:6] for p in data.pairs] == [f"{i:06d}" for i in range(1, 13, 2)]
    assert report.label == "subset (6 of 12234)"
    (root / "Layout/small/test.txt").unlink()
    assert inspect(root, layout="small")[0].verdict == "wrong"


def test_full_counts_are_ok(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PAIRS, "test", 108)
    root = build(tmp_path, CATEGORIES)
    report, data = inspect(root)
    assert data is not None
    assert (report.verdict, report.label, report.problems) == ("ok", "", ())
    assert len(data.categories) == 18
    monkeypatch.setitem(PAIRS, "test", 109)
    assert inspect(root)[0].label == "subset (108 of 109)"


def test_other_categories_are_named(tmp_path: Path) -> None:
    report, _ = inspect(build(tmp_path, ("cat", "hand21")))
    assert report.verdict == "ok-but"
    assert any("1 of 2 categories are not of SPair-71k: hand21" in p for p in report.problems)


PAIR = "PairAnnotation/test/000001-2008_000001-2008_000002:cat.json"
IMAGE = "ImageAnnotation/cat/2008_000001.json"


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (IMAGE, lambda a: a["kps"].pop("1"), "2008_000001.json: keys of kps are not 0 .. 1: 0, 2"),
        (IMAGE, lambda a: a["kps"].update({"x": None}), "keys of kps are not 0 .. 3"),
        (IMAGE, lambda a: a["kps"].update({"0": [1]}), "keypoint 0 is [1]"),
        (IMAGE, lambda a: a["kps"].update({"0": 3}), "missing or unreadable"),
        (IMAGE, lambda a: a.update(bndbox=[30, 2, 30, 33]), "bndbox [30.0, 2.0, 30.0, 33.0] is not"),
        (IMAGE, lambda a: a.update(bndbox=[1, 2, 30]), "bndbox [1.0, 2.0, 30.0] is not"),
        (
            IMAGE,
            lambda a: a.update(image_width=51),
            "is 50 x 37, but ImageAnnotation/cat/2008_000001.json says 51 x 37",
        ),
        (IMAGE, lambda a: a.pop("kps"), "missing or unreadable (KeyError('kps'))"),
        (PAIR, lambda p: p.update(src_imsize=[37, 50, 3]), "differs from"),
        (PAIR, lambda p: p.update(src_imsize=None), "src_imsize is None"),
        (PAIR, lambda p: p.update(viewpoint_variation=3), "viewpoint_variation is 3"),
        (PAIR, lambda p: p.update(category="dog"), "category 'dog' is not the one in its name"),
        (PAIR, lambda p: p.pop("trg_imname"), "lacks trg_imname"),
        (PAIR, lambda p: p.update(filename="000007-a-b:cat"), "its filename field says '000007-a-b:cat'"),
        (PAIR, lambda p: p.update(src_imname="gone.jpg"), "JPEGImages/cat/gone.jpg: missing (asked for by pair 000001"),
    ],
)
def test_errors_of_3_5(tmp_path: Path, file: str, change: Callable[[Any], Any], message: str) -> None:
    root = build(tmp_path)
    edit(root / file, change)
    report, data = inspect(root)
    assert data is None
    assert report.verdict == "wrong"
    assert any(message in p for p in report.problems), report.problems


def test_errors_of_3_5_in_the_files(tmp_path: Path) -> None:
    root = build(tmp_path)
    (root / "PairAnnotation/test/000002-2008_000001-2009_000003:cat.json").unlink()
    (root / "PairAnnotation/test/000003-2008_000002-2008_000001:cat.json").write_text("{")
    (root / "ImageAnnotation/cat/2009_000003.json").unlink()
    Image.new("RGB", (100, 74)).save(root / "JPEGImages/cat/2008_000001.jpg")  # scaled copies shift every keypoint
    (root / "JPEGImages/train/2009_000003.jpg").write_bytes(b"")
    with (root / "Layout/large/test.txt").open("a") as f:
        f.write("000001-2008_000001-2008_000002:cat\n")
    report, _ = inspect(root)
    text = "\n".join(report.problems)
    assert "000002-2008_000001-2009_000003:cat has no file in PairAnnotation/test" in text
    assert "000003-2008_000002-2008_000001:cat.json: Expecting" in text
    assert "ImageAnnotation/cat/2009_000003.json: missing or unreadable" in text
    assert "JPEGImages/cat/2008_000001.jpg is 100 x 74, but src_imsize or trg_imsize says 50 x 37" in text
    assert "JPEGImages/train/2009_000003.jpg: no readable image header" in text
    assert "000001-2008_000001-2008_000002:cat is listed twice" in text


def test_many_problems_are_counted(tmp_path: Path) -> None:
    root = build(tmp_path, CATEGORIES)
    for file in (root / "JPEGImages").rglob("*.jpg"):
        file.unlink()
    report, _ = inspect(root)
    assert len(report.problems) == 21
    assert report.problems[-1] == "... and 34 more"


def test_grey_picture_and_pair_without_shared_keypoint_are_no_errors(tmp_path: Path) -> None:
    root = build(tmp_path)
    Image.new("L", SIZES["2008_000001"]).save(root / "JPEGImages/cat/2008_000001.jpg")
    edit(root / "ImageAnnotation/cat/2008_000002.json", lambda a: a.update(kps={"0": None, "1": None, "2": None}))
    assert inspect(root)[1] is not None


def test_fingerprint_follows_labels(tmp_path: Path) -> None:
    root = build(tmp_path)
    seen = [inspect(root)[0].fingerprint]
    for file, change in (
        (IMAGE, lambda a: a["kps"].update({"0": [5.0, 6.0]})),
        (IMAGE, lambda a: a["kps"].update({"0": [5.5, 6]})),
        (IMAGE, lambda a: a.update(bndbox=[1, 2, 30, 34])),
        (PAIR, lambda p: p.update(viewpoint_variation=2)),
    ):
        edit(root / file, change)
        seen.append(inspect(root)[0].fingerprint)
    assert seen[0] == seen[1]  # 5 and 5.0 are one number
    assert len(set(seen)) == 4


def test_missing_ambiguous_and_unknown(tmp_path: Path) -> None:
    assert inspect(tmp_path)[0].verdict == "missing"
    build(tmp_path / "a" / "one")
    report, data = inspect(tmp_path, split="val")
    assert (report.verdict, data) == ("missing", None)
    assert "no pair in split val" in report.problems[0]
    build(tmp_path / "b")
    report, data = inspect(tmp_path)
    assert (report.verdict, len(report.problems), data) == ("wrong", 2, None)
    with pytest.raises(UsageError, match="did you mean trn"):
        inspect(tmp_path, split="train")
    with pytest.raises(UsageError, match="layout"):
        inspect(tmp_path, layout="medium")
    assert sum(PAIRS.values()) == 70958
    assert INFO.expected == {"pairs": 12234, "categories": 18}


def test_real_keypoint_pairs(real_data: Path) -> None:
    start = time.perf_counter()
    report, data = inspect(real_data / "correspondence")
    assert time.perf_counter() - start < 5
    assert data is not None
    assert report.verdict == "ok-but"
    assert report.label == "subset (306 of 12234)"
    assert (len(data.images), len(data.pairs), len(data.categories)) == (65, 306, 12)
    root = real_data / "correspondence" / "keypoint_pairs_spair_layout"
    for pair in data.pairs:  # the pair files repeat the shared points: an oracle for row alignment
        raw = json.loads((root / "PairAnnotation/test" / f"{pair.id}.json").read_text())
        points = [data.annotations[i].keypoints for i in (pair.source, pair.target)]
        both = np.flatnonzero(~np.isnan(points[0][:, 0]) & ~np.isnan(points[1][:, 0]))
        assert [str(i) for i in both] == raw["kps_ids"]
        np.testing.assert_array_equal(points[0][both], raw["src_kps"])
        np.testing.assert_array_equal(points[1][both], raw["trg_kps"])
        assert list(data.annotations[pair.target].bbox) == raw["trg_bndbox"]


def test_real_spair71k_annotations_parse(real_data: Path, tmp_path: Path) -> None:
    """One true ImageAnnotation and one true PairAnnotation; their pictures are blank, the other annotations made up."""
    reference = real_data / "correspondence" / "spair71k_format_reference"
    pair_file = next(reference.glob("*:*.json"))
    pair, image = json.loads(pair_file.read_text()), json.loads((reference / "2008_000585.json").read_text())
    for folder in ("JPEGImages/aeroplane", "ImageAnnotation/aeroplane", "PairAnnotation/test"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "PairAnnotation/test" / pair_file.name).write_bytes(pair_file.read_bytes())
    for side in ("src", "trg"):
        width, height, _ = pair[f"{side}_imsize"]
        name = Path(pair[f"{side}_imname"]).stem
        Image.new("RGB", (width, height)).save(tmp_path / f"JPEGImages/aeroplane/{name}.jpg")
        changed = image | {"image_width": width, "image_height": height, "bndbox": pair[f"{side}_bndbox"]}
        (tmp_path / f"ImageAnnotation/aeroplane/{name}.json").write_text(json.dumps(changed))
    report, data = inspect(tmp_path)
    assert data is not None, report.problems
    assert data.pairs[0].id == "000006-2008_002719-2008_007604:aeroplane"
    assert data.pairs[0].viewpoint == 1
    points = data.annotations["aeroplane/2008_007604"].keypoints
    assert points.shape == (30, 2)
    assert int((~np.isnan(points[:, 0])).sum()) == sum(v is not None for v in image["kps"].values())
