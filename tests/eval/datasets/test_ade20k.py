"""ADE20k reader: the real pictures, a set of the full size, other vocabularies, and the wrong sets by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from dense_files import link, save, view
from PIL import Image

from mtv.eval.datasets.ade20k import COUNTS, INFO, inspect, read_class_file
from mtv.eval.datasets.ade20k_classes import ADE20K_CLASSES
from mtv.eval.datasets.base import SegmentationSet
from mtv.eval.datasets.dense_decode import read_labels
from mtv.eval.datasets.registry import check_dataset, open_dataset

ROOT = "ADEChallengeData2016"


def raw_labels(seed: int, classes: int) -> np.ndarray:
    """Values on disk: 0 for one region, the classes 1 .. `classes` in the others, the last of them included."""
    raw = view(128, 96, seed, classes=classes + 1).classes_HW
    raw[-9:, -20:] = classes
    return raw.astype(np.uint8)


def build(data: Path, n: int = 4, *, split: str = "validation", classes: int = 150) -> Path:
    """`n` pictures in the true layout; returns the root."""
    root = data / ROOT
    for i in range(1, n + 1):
        stem = f"ADE_{split[:5].replace('valid', 'val')}_{i:08d}"
        save(root / f"images/{split}/{stem}.jpg", view(128, 96, i).rgb_HW3)
        save(root / f"annotations/{split}/{stem}.png", raw_labels(i, classes))
    return root


def write_names(root: Path, names: Sequence[str], *, stuff: bool = False) -> None:
    """`objectInfo150.txt` with the columns of the original."""
    head = ["Idx", "Ratio", "Train", "Val", *(["Stuff"] if stuff else []), "Name"]
    rows = [[str(i), "0.1", "7", "3", *(["0"] if stuff else []), name] for i, name in enumerate(names, start=1)]
    (root / "objectInfo150.txt").write_text("\n".join("\t".join(r) for r in [head, *rows]) + "\n")


def opened(data: Path, split: str = "validation") -> SegmentationSet:
    """The set, or a failure that shows the report."""
    report, dataset = inspect(data, split=split)
    assert dataset is not None, report
    return dataset


def problems(data: Path) -> str:
    """The problems of a refused set."""
    report, dataset = inspect(data, split="validation")
    assert dataset is None
    assert report.verdict == "wrong"
    assert report.repair
    return "\n".join(report.problems)


def test_real_validation_pictures(real_data: Path) -> None:
    dataset = open_dataset("ade20k", real_data)
    assert isinstance(dataset, SegmentationSet)
    assert dataset.report.label == "subset (3 of 2000)"
    assert dataset.classes == ADE20K_CLASSES
    assert list(dataset.sizes.values()) == [(683, 512), (500, 364), (400, 300)]
    for key, ref in dataset.labels.items():
        raw = np.asarray(Image.open(ref.path)).astype(np.int64)
        labels = read_labels(dataset, key)
        assert labels.dtype == np.uint8
        assert labels.shape == raw.shape  # T3: scored at the size of the PNG
        np.testing.assert_array_equal(labels, np.where(raw == 0, 255, raw - 1))
    names = {dataset.classes[i] for i in np.unique(read_labels(dataset, "ADE_val_00000003")) if i != 255}
    assert {"road", "sidewalk", "car", "sky"} <= names


def test_real_training_pictures_and_full_check(real_data: Path) -> None:
    assert open_dataset("ade20k", real_data, split="training").report.label == "subset (3 of 20210)"
    report = check_dataset("ade20k", real_data, full=True)
    assert report.verdict == "ok-but"
    assert report.checked == "full"


def test_class_names_are_those_of_the_original(real_data: Path) -> None:
    path = real_data / "ade20k" / ROOT / "objectInfo150.txt"
    lines = [line.split("\t") for line in path.read_text().splitlines()[1:]]
    assert [row[-1].split(",")[0].strip() for row in lines] == list(ADE20K_CLASSES)
    assert read_class_file(path) == ADE20K_CLASSES
    assert len(set(ADE20K_CLASSES)) == 150
    assert all(name == name.strip() for name in ADE20K_CLASSES)  # `bed ` of other lists


def test_the_full_set_is_ok(tmp_path: Path) -> None:
    root = build(tmp_path, 4)
    write_names(root, ADE20K_CLASSES, stuff=True)
    for i in range(5, COUNTS["validation"] + 1):
        for kind, suffix in (("images", "jpg"), ("annotations", "png")):
            folder = root / kind / "validation"
            link(folder / f"ADE_val_{i % 4 + 1:08d}.{suffix}", folder / f"ADE_val_{i:08d}.{suffix}")
    dataset = opened(tmp_path)
    assert dataset.report.verdict == "ok"
    assert dataset.report.label == ""
    assert dataset.report.found == INFO.expected == {"images": 2000, "classes": 150}
    assert list(dataset.images) == sorted(dataset.images)


def test_other_classes_are_taken_from_the_file(tmp_path: Path) -> None:
    names = [f"thing {i}" for i in range(1, 32)]
    write_names(build(tmp_path, classes=31), [f"{n}, object; item" for n in names])
    dataset = opened(tmp_path)
    assert dataset.report.verdict == "ok-but"
    assert dataset.report.label == "subset (4 of 2000), other classes (31)"
    assert dataset.classes == tuple(names)
    raw = raw_labels(2, 31).astype(int)
    np.testing.assert_array_equal(read_labels(dataset, "ADE_val_00000002"), np.where(raw == 0, 255, raw - 1))
    write_names(tmp_path / ROOT, names[:-1])
    assert "holds 31, which no label of this set is" in problems(tmp_path)


def test_fingerprint_follows_the_classes(tmp_path: Path) -> None:
    root = build(tmp_path, classes=20)
    plain = opened(tmp_path).fingerprint
    write_names(root, ADE20K_CLASSES)
    assert opened(tmp_path).fingerprint == plain
    write_names(root, [f"thing {i}" for i in range(20)])
    assert opened(tmp_path).fingerprint != plain


def test_class_files_that_contradict_themselves(tmp_path: Path) -> None:
    root = build(tmp_path)
    swapped = [ADE20K_CLASSES[1], ADE20K_CLASSES[0], *ADE20K_CLASSES[2:]]
    write_names(root, swapped)
    assert "the 150 classes in another order" in problems(tmp_path)
    write_names(root, ["cup", "cup"])
    assert "there once each" in problems(tmp_path)
    write_names(root, [])
    assert "Idx does not count" in problems(tmp_path)
    (root / "objectInfo150.txt").write_text("1 wall\n2 floor\n")
    assert "no tab-separated columns Idx and Name" in problems(tmp_path)
    (root / "objectInfo150.txt").write_text("Idx\tName\n2\tcup\n1\tmug\n")
    assert "Idx does not count" in problems(tmp_path)


def test_shifted_labels_are_refused(tmp_path: Path) -> None:
    """T1: 0 .. 149 and 255 on disk; the mapping would be applied a second time."""
    root = build(tmp_path)
    for path in (root / "annotations/validation").iterdir():
        raw = np.asarray(Image.open(path)).astype(int)
        save(path, np.where(raw == 0, 255, raw - 1).astype(np.uint8))
    assert "labels are already shifted by one: 255 occurs in 4 decoded maps and 150 does not" in problems(tmp_path)
    for path in (root / "annotations/validation").iterdir():
        save(path, (np.asarray(Image.open(path)).astype(int) + 1).clip(0, 255).astype(np.uint8))  # 0 to 150 and 255
    assert read_labels(opened(tmp_path), "ADE_val_00000001").max() == 255


def test_values_beyond_150_are_refused(tmp_path: Path) -> None:
    root = build(tmp_path)
    save(root / "annotations/validation/ADE_val_00000003.png", np.full((96, 128), 151, np.uint8))
    assert "ADE_val_00000003.png: holds 151" in problems(tmp_path)


@pytest.mark.parametrize(
    "part",
    [
        "images/validation/a/abbey/ADE_val_00000001_seg.png",
        "images/training/a/abbey/ADE_train_00000001_seg.png",
        "images/ADE/training/urban/street/ADE_train_00016869_seg.png",
    ],
)
def test_the_full_annotation_set_is_named(tmp_path: Path, part: str) -> None:
    save(tmp_path / "ADE20K_2021_17_01" / part, np.zeros((4, 6, 3), np.uint8))
    assert "full ADE20K set with *_seg.png parts" in problems(tmp_path)


def test_full_annotation_masks_in_the_right_folder(tmp_path: Path, real_data: Path) -> None:
    root = build(tmp_path)
    mask = next((real_data / "ade20k/full_annotation").glob("*_seg.png"))
    (root / "annotations/validation/ADE_val_00000001_seg.png").write_bytes(mask.read_bytes())
    assert "full ADE20K set" in problems(tmp_path)
    (root / "annotations/validation/ADE_val_00000001_seg.png").unlink()
    (root / "annotations/validation/ADE_val_00000001.png").write_bytes(mask.read_bytes())
    assert "ADE_val_00000001.png: a colour mask (8-bit RGB colour)" in problems(tmp_path)


def test_one_split_does_not_need_the_other(tmp_path: Path) -> None:
    build(tmp_path, 2, split="training")
    assert list(opened(tmp_path, "training").images) == ["ADE_train_00000001", "ADE_train_00000002"]
    assert inspect(tmp_path, split="validation")[0].verdict == "missing"
