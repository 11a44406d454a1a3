"""The sets on disk: every reader opens them, and their files are checked against each other and the scenes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layout_scenes import SPEC, TINY, frames, grey, psnr
from PIL import Image

from mtv.eval.datasets.registry import READERS, check_dataset, open_dataset
from mtv.miniworld.frame import Frame
from mtv.miniworld.layouts import LAYOUTS
from mtv.miniworld.layouts.encode import LONGEST, fit
from mtv.miniworld.layouts.kitti import scanned
from mtv.miniworld.layouts.nyuv2 import sensed
from mtv.miniworld.layouts.scales import SCALES
from mtv.miniworld.spec import WorldSpec
from mtv.miniworld.vocabulary import CATEGORIES, SEMANTIC

BENCHMARKS = [name for name in LAYOUTS if name != "pretrain"]


# readers


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_reader_opens_its_set_without_special_cases(mini_world: Path, name: str) -> None:
    report = check_dataset(name, mini_world)
    assert report.verdict == "ok-but", report.problems
    dataset = open_dataset(name, mini_world)
    assert dataset.images
    assert all(ref.path.is_file() for ref in (*dataset.images.values(), *dataset.extra_files.values()))


def test_no_reader_takes_one_set_for_another(mini_world: Path) -> None:
    for name in set(READERS) - set(LAYOUTS):
        assert check_dataset(name, mini_world).verdict == "missing", name


@pytest.mark.parametrize("name", ["nyuv2", "ade20k"])
def test_other_splits_open_too(mini_world: Path, name: str) -> None:
    for split in {"nyuv2": ("train",), "ade20k": ("training",)}[name]:
        assert check_dataset(name, mini_world, split=split).verdict == "ok-but"


def test_manifests_count_what_the_readers_find(mini_world: Path) -> None:
    top = json.loads((mini_world / "manifest.json").read_bytes())
    assert list(top["sets"]) == sorted(LAYOUTS)
    for name, content in top["sets"].items():
        own = json.loads((mini_world / name / "manifest.json").read_bytes())
        assert own["counts"] == content["counts"]
        on_disk = {p.relative_to(mini_world / name).as_posix() for p in (mini_world / name).rglob("*") if p.is_file()}
        assert on_disk == {*own["files"], "manifest.json"}
        assert (mini_world / name / "README.md").read_text().startswith(f"# {LAYOUTS[name].title}")
    assert top["sets"]["imagenet"]["counts"] == {"images": 32, "classes": 16}
    assert top["sets"]["coco"]["counts"]["captions"] == 60


# requests


@pytest.mark.parametrize("size", [32, 96, 150, 192, 512])
def test_frame_sizes(size: int) -> None:
    spec = WorldSpec(size=size)
    shorter = {"navi": 2, "spair": 2, "ade20k": 1.5, "nyuv2": 2}
    for name, layout in LAYOUTS.items():
        for request in layout.requests(spec, TINY):
            w, h = request.width, request.height
            assert max(w, h) <= LONGEST
            if name == "kitti":
                assert abs(w / h - 1242 / 375) < 1242 / 375 / h
                continue
            ratio = max(w, h) / min(w, h)
            assert min(abs(ratio - 1), abs(ratio - 4 / 3)) < 1.5 / min(w, h)
            if name == "pretrain":
                assert abs(w * h - size**2) <= w + h
                continue
            wanted = shorter.get(name, 1) * size
            slack = 3 if name == "nyuv2" else 0.5
            assert abs(min(w, h) - wanted) <= slack or max(w, h) > LONGEST - 4
            if name == "nyuv2":
                assert w % 4 == h % 4 == 0
                assert abs(3 * w - 4 * h) <= 6


@pytest.mark.parametrize("scale", ["tiny", "small", "medium"])
def test_no_scene_is_asked_for_twice(scale: str) -> None:
    keys = [(r.split, r.index) for layout in LAYOUTS.values() for r in layout.requests(SPEC, SCALES[scale])]
    assert len(set(keys)) == len(keys)
    training = {split for split, _ in keys if split in ("pretrain", "ade20k/training", "nyuv2/train", "spair/trn")}
    for layout in LAYOUTS.values():
        assert all(r.test == (r.split not in training) for r in layout.requests(SPEC, SCALES[scale]))


def test_a_larger_scale_begins_with_the_scenes_of_a_smaller_one() -> None:
    for name in ("imagenet", "pretrain", "coco"):
        small, medium = (LAYOUTS[name].requests(SPEC, SCALES[s]) for s in ("small", "medium"))
        first = {r.split for r in small}
        for split in first:
            few = [r for r in small if r.split == split]
            assert [r for r in medium if r.split == split][: len(few)] == few


# classification, captions, instances


def test_imagenet_classes_are_the_categories_in_order(mini_world: Path) -> None:
    dataset: Any = open_dataset("imagenet", mini_world)
    assert dataset.class_names == CATEGORIES
    assert np.bincount(dataset.labels).tolist() == [2] * 16
    assert not any("ILSVRC" in key for key in dataset.images)
    for request, frame in frames("imagenet", 3):
        key = next(k for k in dataset.images if k.endswith(f"{request.index:08d}.JPEG"))
        assert dataset.titles[dataset.labels[list(dataset.images).index(key)]] == request.category
        assert psnr(dataset.images[key].path, frame) > 28


def test_pycocotools_reads_the_instances_and_boxes_are_those_of_the_masks(mini_world: Path) -> None:
    from pycocotools import mask as coco_mask
    from pycocotools.coco import COCO

    coco = COCO(str(mini_world / "coco/annotations/instances_val2014.json"))
    truth = {900_000_000_001 + r.index: f for r, f in frames("coco", 5)}
    assert len(coco.anns) >= 20
    for record in coco.anns.values():
        mask_HW = coco.annToMask(record)
        rows, columns = np.nonzero(mask_HW)
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert box == record["bbox"]
        assert mask_HW.sum() == record["area"] == coco_mask.area(record["segmentation"])
        frame = truth.get(record["image_id"])
        if frame is None:
            continue
        name = coco.cats[record["category_id"]]["name"]
        inside = frame.instance_HW[mask_HW.astype(bool)]
        assert (inside == inside[0]).all()
        assert frame.scene.instances[inside[0] - 1].name == name
        assert (frame.instance_HW == inside[0]).sum() == mask_HW.sum()


def test_captions_agree_between_the_files(mini_world: Path) -> None:
    dataset: Any = open_dataset("coco", mini_world)
    listed = json.loads((mini_world / "coco/annotations/captions_val2014.json").read_bytes())
    by_image: dict[str, list[str]] = {}
    for a in listed["annotations"]:
        by_image.setdefault(str(a["image_id"]), []).append(a["caption"])
    for position, key in enumerate(dataset.images):
        assert [dataset.captions[i] for i in np.flatnonzero(dataset.owner == position)] == by_image[key]
    splits = [i["split"] for i in json.loads((mini_world / "coco/dataset_coco.json").read_bytes())["images"]]
    assert (splits.count("test"), splits.count("val")) == (10, 2)


# segmentation, depth


def test_label_maps_are_the_semantic_maps(mini_world: Path) -> None:
    root = mini_world / "ade20k/ADEChallengeData2016"
    for request, frame in frames("ade20k", 3):
        stem = f"training/ADE_train_{request.index + 1:08d}"
        with Image.open(root / f"annotations/{stem}.png") as image:
            assert image.mode == "L"
            assert (np.asarray(image) == frame.semantic_HW).all()
        assert psnr(root / f"images/{stem}.jpg", frame) > 28
    header, *rows = (root / "objectInfo150.txt").read_text().splitlines()
    assert header.split("\t") == ["Idx", "Ratio", "Train", "Val", "Name"]
    assert [row.split("\t")[4] for row in rows] == list(SEMANTIC[1:])
    maps = [grey(p) for p in sorted((root / "annotations/training").iterdir())]
    for row in rows:
        index, ratio, train, *_ = row.split("\t")
        assert int(train) == sum((m == int(index)).any() for m in maps)
        share = sum((m == int(index)).sum() for m in maps) / sum(m.size for m in maps)
        assert abs(share - float(ratio)) < 1e-4


def test_nyu_depth_is_millimetres_with_shadows(mini_world: Path) -> None:
    lines = (mini_world / "nyuv2/nyudepthv2_train_files_with_gt.txt").read_text().splitlines()
    assert all(line.startswith("/") for line in lines)
    assert not (mini_world / "nyuv2/nyudepthv2_test_files_with_gt.txt").read_text().endswith("\n")
    holes = []
    for request, frame in frames("nyuv2", 3):
        (line,) = (text for text in lines if f"rgb_{request.index:05d}" in text)
        _, depth, focal = line.split()
        assert float(focal) == pytest.approx(frame.scene.camera.focal, abs=1e-3)
        codes_HW = grey(mini_world / f"nyuv2/official_splits/train{depth}").astype(np.int64)
        known_HW = codes_HW > 0
        assert np.abs(codes_HW - frame.depth_HW * 1000)[known_HW].max() <= 0.51
        assert (known_HW == shadowless(frame)).all()
        holes.append(1 - known_HW.mean())
    assert 0 < max(holes) < 0.4


def shadowless(frame: Frame) -> np.ndarray:
    """Naive: a pixel is lit unless another one in its row, to its left, is moved past it by the projector's offset."""
    out = np.zeros(frame.depth_HW.shape, dtype=bool)
    for row, depths in enumerate(frame.depth_HW.astype(float)):
        moved = [x + frame.scene.camera.focal * 0.075 / d if d > 0 else x for x, d in enumerate(depths)]
        for x, d in enumerate(depths):
            out[row, x] = 0 < d <= 10 and all(moved[k] <= moved[x] + 0.5 for k in range(x))
    return out


def test_kitti_depth_lies_on_beams_below_the_top_one(mini_world: Path) -> None:
    lines = (mini_world / "kitti/eigen_test_files_with_gt.txt").read_text().splitlines()
    for (request, frame), line in zip(frames("kitti", 3), lines, strict=False):
        picture, truth, _ = line.split()
        assert psnr(mini_world / "kitti/raw" / picture, frame) > 60
        codes_HW = grey(mini_world / "kitti/data_depth_annotated/val" / truth).astype(np.int64)
        rows, columns = np.nonzero(codes_HW)
        assert np.abs(codes_HW - frame.depth_HW * 256)[rows, columns].max() <= 0.51
        assert 0.05 < len(rows) / codes_HW.size <= 0.25
        camera = frame.scene.camera
        for x, y in zip(columns[::17], rows[::17], strict=True):
            ray = np.array(camera.rotation).T @ [x + 0.5 - camera.width / 2, y + 1 - camera.height / 2, camera.focal]
            assert -26 < np.degrees(np.arctan2(ray[2], np.hypot(ray[0], ray[1]))) <= 2
        assert request.width / request.height == pytest.approx(1242 / 375, rel=0.02)


def test_masks_of_the_sensors_are_pure() -> None:
    from mtv.draws import Draws

    (_, frame), *_ = frames("kitti", 1)
    assert (scanned(frame, Draws(1)) == scanned(frame, Draws(1))).all()
    assert (scanned(frame, Draws(1)) != scanned(frame, Draws(2))).any()
    assert not (sensed(frame) & (frame.depth_HW > 10)).any()


# questions, pretraining


def test_questions_have_the_fields_and_sources_of_their_forms(mini_world: Path) -> None:
    dataset: Any = open_dataset("cvbench", mini_world)
    assert {q.source for q in dataset.questions} == {"MiniWorld2D", "MiniWorld3D"}
    assert {q.task for q in dataset.questions} <= {"Count", "Relation", "Depth", "Distance"}
    for q in dataset.questions:
        assert q.prompt.startswith(q.question)
        assert all(f"({letter}) {choice}" in q.prompt for letter, choice in zip("ABCD", q.choices, strict=False))
    pairs: Any = open_dataset("mmvp", mini_world)
    assert len(pairs.questions) == 6
    assert all(a.question == b.question for a, b in zip(pairs.questions[::2], pairs.questions[1::2], strict=True))
    assert not any("not CV" in p for p in check_dataset("mmvp", mini_world).problems)


def test_shards_are_whole_and_hold_the_truth_of_their_scenes(mini_world: Path) -> None:
    from mtv.miniworld.language import regions
    from mtv.shards import ShardDataset, decode_disparity

    shards = ShardDataset.open(mini_world / "pretrain", labels=("depth-mini-v1", "regions-mini-v1"))
    assert len(shards) == 24
    assert list(shards.verify(full=True)) == []
    for i, (request, frame) in enumerate(frames("pretrain", 4, start=14), start=14):
        sample = shards.sample(i)
        assert sample.key == f"mini_{request.index:08d}"
        assert (sample.w, sample.h) == frame.size
        assert len(sample.captions) == 5
        assert sample.disparity is not None
        code = sample.disparity
        disparity_HW = decode_disparity(code.png, code.min, code.max)
        hit_HW = frame.depth_HW > 0
        step = (code.max - code.min) / 4095
        assert np.abs(disparity_HW - 1 / np.where(hit_HW, frame.depth_HW, np.inf)).max() <= 0.51 * step + 1e-6
        product = (disparity_HW * frame.depth_HW)[hit_HW & (frame.depth_HW < 10)]
        assert np.abs(product - 1).max() < 0.6 * step * 10 + 1e-4
        assert sample.regions is not None
        boxes = [tuple(np.multiply(r.box, (*frame.size, *frame.size)).round().astype(int)) for r in sample.regions]
        assert boxes == [r.box for r in regions(frame)]
        assert [r.name for r in sample.regions] == [r.name for r in regions(frame)]


@given(width=st.floats(32, 4000), height=st.floats(32, 4000))
def test_fit_keeps_the_aspect_and_the_limit(width: float, height: float) -> None:
    w, h = fit(width, height)
    assert max(w, h) <= LONGEST
    assert abs(w * height - h * width) <= 0.51 * (width + height)
