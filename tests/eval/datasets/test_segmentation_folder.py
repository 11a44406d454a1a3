"""The engine of the segmentation sets: pairing, headers, values, and descriptions of sets without code of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dense_files import save, save_palette, view
from PIL import Image

from mtv.errors import UsageError
from mtv.eval.datasets.base import SegmentationSet
from mtv.eval.datasets.dense_decode import read_labels
from mtv.eval.datasets.full_check import full_check
from mtv.eval.datasets.label_evidence import runs_in_between
from mtv.eval.datasets.registry import ReaderInfo, check_dataset, open_dataset
from mtv.eval.datasets.segmentation_folder import FolderReader, SegmentationLayout
from mtv.eval.datasets.segmentation_sets import CAMVID_CLASSES, NYU40_CLASSES, camvid

INFO = ReaderInfo(
    name="shapes",
    title="a set of the tests",
    default_split="val",
    splits=("val", "train"),
    licence="none",
    how_to_get="made here",
    layout="pictures/val/*.jpg, masks/val/*.png",
    expected={"images": 4, "classes": 12},
)
LAYOUT = SegmentationLayout(
    images="pictures/{split}/*",
    labels="masks/{split}/*_mask",
    folders={"val": "val", "train": "train"},
    counts={"val": 4, "train": 9},
    classes=tuple(f"class {i}" for i in range(12)),
    raw_to_train={i: i for i in range(12)},
    ignored=(255,),
)
READER = FolderReader(INFO=INFO, layout=LAYOUT)


def build(root: Path, n: int = 4, *, width: int = 96, height: int = 72) -> Path:
    """`n` pictures of the layout above; a pixel in ten is void."""
    for i in range(n):
        seen = view(width, height, i)
        labels = seen.classes_HW.astype(np.uint8)
        labels[:, : width // 10] = 255
        save(root / "pictures" / "val" / f"a{i:02d}.jpg", seen.rgb_HW3)
        save(root / "masks" / "val" / f"a{i:02d}_mask.png", labels)
    return root


def opened(data: Path, reader: FolderReader = READER, split: str = "val") -> SegmentationSet:
    """The set, or a failure that shows the report."""
    report, dataset = reader.inspect(data, split=split)
    assert dataset is not None, report
    return dataset


def problems(data: Path, reader: FolderReader = READER) -> str:
    """The problems of a refused set."""
    report, dataset = reader.inspect(data, split="val")
    assert dataset is None
    assert report.verdict == "wrong"
    assert report.repair
    return "\n".join(report.problems)


def test_a_whole_set_is_ok(tmp_path: Path) -> None:
    dataset = opened(build(tmp_path / "up" / "shapes").parents[1])
    assert dataset.report.verdict == "ok"
    assert dataset.report.label == ""
    assert list(dataset.images) == ["a00", "a01", "a02", "a03"] == list(dataset.labels) == list(dataset.sizes)
    assert set(dataset.extra_files) == set(dataset.checks) == {f"{k}.label" for k in dataset.images}
    assert dataset.labels["a02"].name == "masks/val/a02_mask.png"
    assert dataset.sizes["a02"] == (96, 72)
    for i, key in enumerate(dataset.images):
        expected = view(96, 72, i).classes_HW
        expected[:, :9] = 255
        np.testing.assert_array_equal(read_labels(dataset, key), expected)


def test_subsets_and_larger_sets_are_labelled(tmp_path: Path) -> None:
    assert opened(build(tmp_path / "a", 3)).report.label == "subset (3 of 4)"
    assert opened(build(tmp_path / "b", 6)).report.label == "6 images instead of 4"


def test_fingerprint_depends_on_content_not_on_order(tmp_path: Path) -> None:
    first = opened(build(tmp_path / "a")).fingerprint
    backwards = tmp_path / "b"
    for folder in ("pictures/val", "masks/val"):
        (backwards / folder).mkdir(parents=True)
        for path in sorted((tmp_path / "a" / folder).iterdir(), reverse=True):
            (backwards / folder / path.name).write_bytes(path.read_bytes())
    assert opened(backwards).fingerprint == first
    renamed = replace(READER, layout=replace(LAYOUT, classes=tuple(f"kind {i}" for i in range(12))))
    assert opened(tmp_path / "a", renamed).fingerprint != first
    mapped = replace(READER, layout=replace(LAYOUT, raw_to_train={i: 11 - i for i in range(12)}))
    assert opened(tmp_path / "a", mapped).fingerprint != first
    assert opened(build(tmp_path / "c", width=100)).fingerprint != first


def test_pairing_problems_name_the_files(tmp_path: Path) -> None:
    root = build(tmp_path / "s", 5)
    (root / "masks/val/a01_mask.png").unlink()
    (root / "pictures/val/a03.jpg").unlink()
    save(root / "pictures/val/a04.png", view(96, 72, 4).rgb_HW3)
    text = problems(root)
    assert "pictures/val/a01.jpg: no label map" in text
    assert "masks/val/a03_mask.png: no picture" in text
    assert "pictures/val/a04.png: there with another suffix too, a04.jpg" in text


def test_hidden_files_and_strangers_are_left_out(tmp_path: Path) -> None:
    root = build(tmp_path / "s")
    (root / "pictures/val/._a00.jpg").write_bytes(b"resource fork")
    (root / "masks/val/._a00_mask.png").write_bytes(b"resource fork")
    (root / "masks/val/notes.txt").write_text("x")
    assert opened(root).report.verdict == "ok"


def test_other_suffix_is_labelled(tmp_path: Path) -> None:
    root = build(tmp_path / "s")
    for path in sorted((root / "pictures/val").iterdir()):
        save(path.with_suffix(".png"), np.asarray(Image.open(path)))
        path.unlink()
    assert opened(root).report.label == ".png pictures"


def test_exif_orientation_is_refused(tmp_path: Path) -> None:
    """T6: some readers turn such a picture, its label map never turns."""
    root = build(tmp_path / "s")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(view(96, 72, 0).rgb_HW3).save(root / "pictures/val/a00.jpg", exif=exif)
    assert "pictures/val/a00.jpg: EXIF orientation 6" in problems(root)
    exif[0x0112] = 1
    Image.fromarray(view(96, 72, 0).rgb_HW3).save(root / "pictures/val/a00.jpg", exif=exif)
    assert opened(root).report.verdict == "ok"


def test_wrong_masks_are_named(tmp_path: Path) -> None:
    root = build(tmp_path / "s")
    mask = root / "masks/val/a02_mask.png"
    whole = np.asarray(Image.open(mask))
    save(mask, whole[::2, ::2])
    assert "a02_mask.png: the label map is 48 x 36, its picture 96 x 72; one of them was resized" in problems(root)
    save(mask, whole[..., None].repeat(3, 2))
    assert "a02_mask.png: a colour mask (8-bit RGB colour)" in problems(root)
    save(mask, np.where(whole == 3, 77, whole).astype(np.uint8))
    assert "a02_mask.png: holds 77, which no label of this set is" in problems(root)
    mask.write_bytes(mask.read_bytes()[:-100])
    assert "a02_mask.png: cannot be decoded" in problems(root)
    mask.unlink()
    mask.symlink_to(root / "nowhere.png")
    assert "a02_mask.png: missing" in problems(root)


def test_interpolated_masks_are_found(tmp_path: Path) -> None:
    root = build(tmp_path / "s")
    for path in sorted((root / "masks/val").iterdir()):
        labels = Image.fromarray(np.where(np.asarray(Image.open(path)) == 255, 0, np.asarray(Image.open(path))))
        labels.resize((48, 36), Image.Resampling.NEAREST).resize((96, 72), Image.Resampling.NEAREST).save(path)
    assert opened(root).report.verdict == "ok"
    for path in sorted((root / "masks/val").iterdir()):
        Image.open(path).resize((48, 36), Image.Resampling.NEAREST).resize((96, 72), Image.Resampling.BILINEAR).save(
            path
        )
    assert "resized masks" in problems(root)


def test_runs_in_between_agrees_with_a_loop() -> None:
    labels = np.random.default_rng(0).integers(0, 5, (11, 17)).astype(np.uint8)
    between = changes = 0
    for row in labels.tolist():
        changes += sum(row[i] != row[i + 1] for i in range(16))
        between += sum(a < b < c or a > b > c for a, b, c in zip(row, row[1:], row[2:], strict=False))
    assert runs_in_between(labels) == (between, changes)


def test_full_check_reads_every_label_map(tmp_path: Path) -> None:
    """The quick check decodes 16 of 40 maps: a value out of range in another one is found with --full only."""
    root = build(tmp_path / "s", 40, width=40, height=30)
    mask = root / "masks/val/a01_mask.png"
    save(mask, np.where(np.asarray(Image.open(mask)) == 0, 99, 1).astype(np.uint8))
    dataset = opened(root)
    report = full_check(dataset, data=root)
    assert report.verdict == "wrong"
    assert "masks/val/a01_mask.png: holds 99, which no label of this set is" in report.problems[0]
    save(mask, np.ones((30, 40), np.uint8))
    report = full_check(opened(root), data=root)
    assert report.verdict == "ok-but"
    assert report.checked == "full"


def test_missing_is_not_wrong(tmp_path: Path) -> None:
    (tmp_path / "s/pictures/val").mkdir(parents=True)
    (tmp_path / "s/masks/val").mkdir(parents=True)
    report, dataset = READER.inspect(tmp_path, split="val")
    assert dataset is None
    assert report.verdict == "missing"
    assert "no picture called pictures/val/*" in report.problems[0]
    assert READER.inspect(tmp_path, split="train")[0].verdict == "missing"
    build(tmp_path / "s")
    build(tmp_path / "t")
    report, _ = READER.inspect(tmp_path, split="val")
    assert report.verdict == "wrong"
    assert [p for p in report.problems if p.endswith("/t")]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": "masks/{split}/*/*"}, "differ in wildcards"),
        ({"images": "a/*/*", "labels": "b/*/*", "list_file": "l.txt"}, "exactly one"),
        ({"counts": {"val": 4}}, "folders name"),
        ({"raw_to_train": {i: i + 1 for i in range(12)}}, "does not map onto 0 .. 11"),
        ({"ignored": (256,)}, "8-bit values"),
        ({"ignored": (3,)}, "values that raw_to_train maps"),
    ],
)
def test_impossible_descriptions_name_the_field(change: Mapping[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace(LAYOUT, **change)  # type: ignore[arg-type]


def test_pascal_voc_is_a_description(tmp_path: Path) -> None:
    """Lists of stems choose from one folder, palette PNGs, 255 for the border."""
    voc = FolderReader(
        INFO=INFO,
        layout=SegmentationLayout(
            images="JPEGImages/*",
            labels="SegmentationClass/*",
            list_file="ImageSets/Segmentation/{split}.txt",
            folders={"val": "val", "train": "train"},
            counts={"val": 1449, "train": 1464},
            classes=tuple(f"class {i}" for i in range(21)),
            raw_to_train={i: i for i in range(21)},
            ignored=(255,),
        ),
    )
    root = tmp_path / "VOC2012"
    palette = [(i * 5 % 256, i * 91 % 256, i * 17 % 256) for i in range(256)]
    for i in range(6):
        seen = view(80, 60, i, classes=21)
        labels = seen.classes_HW.copy()
        labels[:2] = 255
        save(root / f"JPEGImages/2007_{i:06d}.jpg", seen.rgb_HW3)
        if i != 5:  # most pictures of VOC have no mask
            save_palette(root / f"SegmentationClass/2007_{i:06d}.png", labels, palette)
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("2007_000003\n2007_000001")
    (lists / "train.txt").write_text("2007_000000\n2007_000005\n2007_000009\n")
    dataset = opened(tmp_path, voc)
    assert list(dataset.images) == ["2007_000001", "2007_000003"]
    assert dataset.report.label == "subset (2 of 1449)"
    expected = view(80, 60, 3, classes=21).classes_HW
    expected[:2] = 255
    np.testing.assert_array_equal(read_labels(dataset, "2007_000003"), expected)
    report, _ = voc.inspect(tmp_path, split="train")
    assert "2007_000009: listed, but neither picture nor label map" in report.problems
    assert "JPEGImages/2007_000005.jpg: no label map" in report.problems
    (lists / "train.txt").unlink()
    assert "train.txt: cannot be read" in voc.inspect(tmp_path, split="train")[0].problems[0]


def test_cityscapes_is_a_description(tmp_path: Path) -> None:
    """Folders per city, 34 values on disk of which 19 are scored."""
    scored = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
    cityscapes = FolderReader(
        INFO=INFO,
        layout=SegmentationLayout(
            images="leftImg8bit/{split}/*/*_leftImg8bit",
            labels="gtFine/{split}/*/*_gtFine_labelIds",
            suffixes=(".png",),
            folders={"val": "val", "train": "train"},
            counts={"val": 500, "train": 2975},
            classes=tuple(f"class {i}" for i in range(19)),
            raw_to_train={value: i for i, value in enumerate(scored)},
            ignored=tuple(v for v in range(34) if v not in scored),
        ),
    )
    for i, city in enumerate(("munster", "frankfurt")):
        stem = f"{city}/{city}_00000{i}_000019"
        seen = view(128, 64, i, classes=34)
        save(tmp_path / f"leftImg8bit/val/{stem}_leftImg8bit.png", seen.rgb_HW3)
        save(tmp_path / f"gtFine/val/{stem}_gtFine_labelIds.png", seen.classes_HW.astype(np.uint8))
        save(tmp_path / f"gtFine/val/{stem}_gtFine_instanceIds.png", seen.classes_HW.astype(np.uint16))
    dataset = opened(tmp_path, cityscapes)
    first = "frankfurt/frankfurt_000001_000019_leftImg8bit"
    assert list(dataset.images) == [first, "munster/munster_000000_000019_leftImg8bit"]
    raw = view(128, 64, 1, classes=34).classes_HW
    expected = [[scored.index(v) if v in scored else 255 for v in row] for row in raw.tolist()]
    np.testing.assert_array_equal(read_labels(dataset, first), expected)


def test_camvid_real(real_data: Path) -> None:
    for split, n, full in (("test", 60, 233), ("val", 40, 101), ("train", 100, 367)):
        dataset = open_dataset("camvid", real_data, split=split)
        assert isinstance(dataset, SegmentationSet)
        assert dataset.report.label == f"subset ({n} of {full}), .jpg pictures"
        assert len(dataset.images) == n
    assert dataset.classes == CAMVID_CLASSES
    seen: set[int] = set()
    for key, ref in list(dataset.labels.items())[::4]:
        raw = np.asarray(Image.open(ref.path))
        labels = read_labels(dataset, key)
        np.testing.assert_array_equal(labels, np.where(raw == 11, 255, raw))
        seen |= set(np.unique(labels).tolist())
    assert seen == {*range(11), 255}


def test_camvid_labels_mean_what_their_names_say(real_data: Path) -> None:
    """The sky is above, the road below: an order of the names that is off by one would show."""
    dataset = opened(real_data, camvid, "test")
    rows: dict[str, list[float]] = {}
    for key in list(dataset.images)[::3]:
        labels = read_labels(dataset, key)
        for i in np.unique(labels[labels != 255]):
            rows.setdefault(dataset.classes[i], []).append(float(np.nonzero(labels == i)[0].mean() / len(labels)))
    place = {name: np.mean(values) for name, values in rows.items()}
    assert min(place, key=place.__getitem__) == "sky"
    assert max(place, key=place.__getitem__) == "road"


def test_nyu40_real(real_data: Path) -> None:
    dataset = open_dataset("nyu40", real_data)
    assert isinstance(dataset, SegmentationSet)
    assert dataset.report.label == "subset (110 of 654)"
    assert len(dataset.classes) == len(set(NYU40_CLASSES)) == 39
    depth = open_dataset("nyuv2", real_data)
    assert list(dataset.images) == list(depth.images)  # the two sets share their ids
    key = "kitchen/rgb_00000"
    raw = np.asarray(Image.open(dataset.labels[key].path))
    np.testing.assert_array_equal(read_labels(dataset, key), np.where(raw == 39, 255, raw))
    ceiling, floor = dataset.classes.index("ceiling"), dataset.classes.index("floor")
    height = {c: [] for c in (ceiling, floor)}  # type: dict[int, list[float]]
    for k in list(dataset.images)[::5]:
        labels = read_labels(dataset, k)
        for c, values in height.items():
            if (labels == c).any():
                values.append(float(np.nonzero(labels == c)[0].mean()))
    assert max(height[ceiling]) < 200 < 300 < np.median(height[floor])


def test_nyuv2_without_labels_is_no_nyu40(tmp_path: Path) -> None:
    """`data check` of a folder with plain NYUv2 must not fail because of a set that is not there."""
    save(tmp_path / "nyuv2/official_splits/test/bath/rgb_00001.jpg", view(64, 48, 0).rgb_HW3)
    report = check_dataset("nyu40", tmp_path)
    assert report.verdict == "missing"
    assert "no label map called official_splits/test/*/label40_*" in report.problems[0]
