"""ImageNet reader: the verdicts of `zero_shot_and_retrieval.md` section 2.2 on generated sets in the true layouts."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from mtv.errors import DataError
from mtv.eval.datasets.base import ClassificationSet, FileRef
from mtv.eval.datasets.imagenet import inspect, judge
from mtv.eval.datasets.imagenet_classes import imagenet_wnids, reassessed_labels, standard_class_names
from mtv.eval.datasets.imagenet_layouts import Item, Listing, read_devkit_ids
from mtv.eval.datasets.registry import check_dataset, open_dataset
from mtv.hashing import sha256_lines

FIRST = "ILSVRC2012_val_00000001.JPEG"


def jpeg(value: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (value % 256, 0, 0)).save(stream, "JPEG")
    return stream.getvalue()


def put(root: Path, *names: str) -> None:
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(i))


def val_name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


@lru_cache(maxsize=1)
def rated() -> list[list[int]]:
    return reassessed_labels()


def real_label(number: int) -> int:
    """A class that human raters accept for this validation picture."""
    return rated()[number - 1][0]


def rated_numbers(n: int) -> list[int]:
    return [i for i, labels in enumerate(rated(), 1) if labels][:n]


def write_devkit(folder: Path, truth: list[int]) -> dict[int, str]:
    """The devkit's two files: 1000 leaves in a shuffled order with 490 = n01751748, and some inner synsets."""
    wnids = list(np.random.default_rng(0).permutation(imagenet_wnids()))
    wnids.remove("n01751748")
    wnids.insert(489, "n01751748")
    rows = [(i, str(w), "words", "gloss", 0.0) for i, w in enumerate(wnids, 1)]
    rows += [(1001 + i, f"n0000000{i}", "entity", "gloss", 3.0) for i in range(5)]
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    folder.mkdir(parents=True, exist_ok=True)
    savemat(str(folder / "meta.mat"), {"synsets": np.array(rows, dtype=kinds).reshape(-1, 1)})
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(map(str, truth)) + "\n")
    return {i: str(w) for i, w in enumerate(wnids, 1)}


def refused(data: Path) -> str:
    report, dataset = inspect(data, split="val")
    assert dataset is None
    assert report.verdict == "wrong", report
    assert report.repair
    return " ".join((*report.problems, report.repair))


def opened(data: Path) -> ClassificationSet:
    report, dataset = inspect(data, split="val")
    assert dataset is not None, report
    return dataset


def test_class_list_is_the_published_one() -> None:
    wnids = imagenet_wnids()
    assert len(wnids) == 1000
    assert list(wnids) == sorted(wnids)
    assert sha256_lines(wnids) == "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
    assert wnids[0] == "n01440764"
    assert wnids.index("n01751748") == 65


def test_z13_devkit_id_490_becomes_class_65(tmp_path: Path) -> None:
    root = tmp_path / "imagenet"
    wnid_of = write_devkit(root / "ILSVRC2012_devkit_t12" / "data", [490, 1, 1000, 2])
    put(root / "val", *(val_name(i) for i in (1, 2, 3, 4)))
    dataset = opened(tmp_path)
    full = dataset.class_indices[dataset.labels]
    assert list(dataset.images) == [val_name(i).removesuffix(".JPEG") for i in (1, 2, 3, 4)]
    assert full[0] == 65
    assert list(full) == [imagenet_wnids().index(wnid_of[k]) for k in (490, 1, 1000, 2)]
    assert dataset.report.verdict == "ok-but"
    assert dataset.report.label == "subset (4 of 50000)"
    assert read_devkit_ids(root / "ILSVRC2012_devkit_t12" / "data" / "meta.mat") == wnid_of


def test_flat_and_class_folders_have_one_fingerprint(tmp_path: Path) -> None:
    wnid_of = write_devkit(tmp_path / "a" / "imagenet", [490, 7, 7])
    put(tmp_path / "a" / "imagenet" / "val", *(val_name(i) for i in (3, 1, 2)))
    put(tmp_path / "b" / "imagenet" / "val", *(f"{wnid_of[k]}/{val_name(i)}" for k, i in ((7, 2), (490, 1), (7, 3))))
    flat, folders = opened(tmp_path / "a"), opened(tmp_path / "b")
    assert flat.report.layout != folders.report.layout
    assert flat.fingerprint == folders.fingerprint
    assert list(flat.images) == list(folders.images)
    np.testing.assert_array_equal(flat.labels, folders.labels)
    # the same pictures with another label are another data set
    put(tmp_path / "c" / "imagenet" / "val", *(f"{wnid_of[k]}/{val_name(i)}" for k, i in ((8, 2), (490, 1), (7, 3))))
    assert opened(tmp_path / "c").fingerprint != flat.fingerprint


def test_z13_flat_folder_without_devkit_is_refused_with_the_way_to_sort(tmp_path: Path) -> None:
    put(tmp_path / "imagenet" / "val", val_name(1), val_name(2))
    text = refused(tmp_path)
    assert "flat folder" in text
    assert "meta.mat" in text
    assert "val/<wnid>/" in text


@pytest.mark.parametrize("truth", [[490], [490, 1001]])
def test_picture_without_ground_truth_is_named(tmp_path: Path, truth: list[int]) -> None:
    write_devkit(tmp_path / "imagenet", truth)
    put(tmp_path / "imagenet" / "val", val_name(1), val_name(2))
    assert val_name(2) in refused(tmp_path)


def test_foreign_meta_mat_is_refused(tmp_path: Path) -> None:
    write_devkit(tmp_path / "imagenet", [490])
    (tmp_path / "imagenet" / "meta.mat").write_bytes(b"no matlab file")
    put(tmp_path / "imagenet" / "val", FIRST)
    assert "meta.mat" in refused(tmp_path)


def test_z13_integer_folders_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "data" / "val", *(f"{i}/{val_name(i)}" for i in range(1, 1001)))
    text = refused(tmp_path)
    assert "integers" in text
    assert "ILSVRC2012_ID to WNID" in text
    # also a few of them, where the folder says that it is ImageNet
    put(tmp_path / "few" / "imagenet" / "val", f"1/{val_name(1)}", f"1000/{val_name(2)}")
    assert "devkit ids" in refused(tmp_path / "few")


def test_names_and_foreign_wnids_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "a" / "imagenet" / "val", f"tench/{FIRST}", f"goldfish/{val_name(2)}")
    assert "goldfish, tench" in refused(tmp_path / "a")
    put(tmp_path / "b" / "imagenet" / "val", f"n01440764/{FIRST}", f"n00004475/{val_name(2)}")
    text = refused(tmp_path / "b")
    assert "n00004475" in text
    assert "n01440764" not in text.partition("such as")[0]


def test_z13_999_folders_keep_their_places_in_the_full_order(tmp_path: Path) -> None:
    wnids = list(imagenet_wnids())
    gone = wnids[500]
    put(tmp_path / "imagenet" / "val", *(f"{w}/picture.JPEG" for w in wnids if w != gone))
    dataset = opened(tmp_path)
    assert dataset.report.verdict == "ok-but"
    assert dataset.report.label == "subset (999 of 50000)"
    assert any(gone in p for p in dataset.report.problems)
    assert list(dataset.class_indices) == [i for i in range(1000) if i != 500]
    assert dataset.classes == tuple(w for w in wnids if w != gone)
    assert list(dataset.labels) == list(range(999))


def test_z13_one_picture_per_class_is_a_sample(tmp_path: Path) -> None:
    put(tmp_path / "imagenet" / "val", *(f"{w}/{w}_name.JPEG" for w in imagenet_wnids()))
    dataset = opened(tmp_path)
    assert dataset.report.label == "sample, not val (1000 of 50000)"
    np.testing.assert_array_equal(dataset.class_indices, np.arange(1000))


def test_training_images_are_refused(tmp_path: Path) -> None:
    head = jpeg()
    for wnid in imagenet_wnids()[:2]:
        (tmp_path / "imagenet" / "val" / wnid).mkdir(parents=True)
        for i in range(732):
            (tmp_path / "imagenet" / "val" / wnid / f"{wnid}_{i}.JPEG").write_bytes(head)
    text = refused(tmp_path)
    assert "training images" in text
    assert "732 to 732 per class" in text


def test_hidden_files_and_notes_are_no_pictures(tmp_path: Path) -> None:
    val = tmp_path / "imagenet" / "val"
    put(val, f"n01440764/{FIRST}", "n01443537/ILSVRC2012_val_00000002.JPEG")
    before = opened(tmp_path).fingerprint
    for name in ("._ILSVRC2012_val_00000003.JPEG", ".DS_Store", "Thumbs.db", "readme.txt"):
        (val / "n01440764" / name).write_bytes(b"x")
    (val / ".cache").mkdir()
    (val / ".DS_Store").write_bytes(b"x")
    after = opened(tmp_path)
    assert after.fingerprint == before
    assert len(after.images) == 2


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_empty_and_foreign_files_are_listed(tmp_path: Path, content: bytes) -> None:
    put(tmp_path / "imagenet" / "val", f"n01440764/{FIRST}")
    (tmp_path / "imagenet" / "val" / "n01440764" / val_name(2)).write_bytes(content)
    assert f"imagenet/val/n01440764/{val_name(2)}" in refused(tmp_path)


def test_a_picture_in_two_classes_and_one_beside_them_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "a" / "imagenet" / "val", f"n01440764/{FIRST}", f"n01443537/{FIRST}")
    assert "occurs twice" in refused(tmp_path / "a")
    put(tmp_path / "b" / "imagenet" / "val", f"n01440764/{FIRST}", val_name(2))
    assert val_name(2) in refused(tmp_path / "b")


def test_two_copies_are_both_listed(tmp_path: Path) -> None:
    put(tmp_path / "one" / "val", f"n01440764/{FIRST}")
    put(tmp_path / "two" / "val", f"n01440764/{FIRST}")
    text = refused(tmp_path)
    assert "one/val" in text
    assert "two/val" in text
    # a folder called imagenet is meant
    put(tmp_path / "imagenet" / "val", f"n01440764/{FIRST}", f"n01440764/{val_name(2)}")
    assert len(opened(tmp_path).images) == 2


def test_data_may_be_the_root_or_val_itself(tmp_path: Path) -> None:
    put(tmp_path / "x" / "imagenet" / "val", f"n01440764/{FIRST}")
    prints = {opened(p).fingerprint for p in (tmp_path, tmp_path / "x", tmp_path / "x" / "imagenet")}
    assert prints == {opened(tmp_path / "x" / "imagenet" / "val").fingerprint}


def test_missing_set_shows_the_layout(tmp_path: Path) -> None:
    report = check_dataset("imagenet", tmp_path)
    assert report.verdict == "missing"
    assert "val/<wnid>/" in report.repair
    with pytest.raises(DataError, match=r"ILSVRC2012_img_val\.tar"):
        open_dataset("imagenet", tmp_path)
    with pytest.raises(DataError, match="no such directory"):
        check_dataset("imagenet", tmp_path / "absent")


def listing(labels: dict[int, int]) -> Listing:
    ref = FileRef(path=Path(FIRST), name=FIRST)
    items = tuple(Item(id=f"ILSVRC2012_val_{n:08d}", index=index, file=ref) for n, index in labels.items())
    return Listing(root=Path("val"), layout="class folders named by wnid", items=items)


def balanced_labels() -> dict[int, int]:
    """50 pictures per class, as often as possible with a class that raters accept."""
    counts: Counter[int] = Counter()
    labels: dict[int, int] = {}
    for number, accepted in enumerate(rated(), 1):
        fitting = [a for a in accepted if counts[a] < 50]
        if fitting:
            labels[number] = fitting[0]
            counts[fitting[0]] += 1
    left = [n for n in range(1, 50_001) if n not in labels]
    labels.update(zip(left, [c for c in range(1000) for _ in range(50 - counts[c])], strict=True))
    return labels


def test_full_set_is_ok_and_a_permuted_one_wrong() -> None:
    labels = balanced_labels()
    assert judge(listing(labels)).verdict == "ok"
    # devkit ids taken for class indices: a permutation of the classes
    permutation = np.random.default_rng(1).permutation(1000)
    permuted = judge(listing({n: int(permutation[i]) for n, i in labels.items()}))
    assert permuted.verdict == "wrong"
    assert "permuted" in permuted.problems[0]
    labels[1] = (labels[1] + 1) % 1000
    uneven = judge(listing(labels))
    assert uneven.verdict == "ok-but"
    assert uneven.label == "50000 images, not 50 per class"
    assert "2 classes with other than 50" in uneven.problems[0]
    del labels[2]
    assert judge(listing(labels)).label == "subset (49999 of 50000)"


def test_subset_with_unlikely_labels_says_so() -> None:
    numbers = rated_numbers(40)
    assert judge(listing({n: real_label(n) for n in numbers})).label == "subset (40 of 50000)"
    shifted = judge(listing({n: (real_label(n) + 500) % 1000 for n in numbers}))
    assert shifted.verdict == "ok-but"
    assert shifted.label == "subset (40 of 50000), labels unlike the original"


def write_shards(root: Path, samples: list[list[tuple[str, bytes]]], names: list[str]) -> None:
    (root / "test").mkdir(parents=True)
    (root / "classnames.txt").write_text("\n".join(names) + "\n")
    (root / "test" / "nshards.txt").write_text(f"{len(samples)}\n")
    for i, members in enumerate(samples):
        with tarfile.open(root / "test" / f"{i}.tar", "w") as tar:
            for name, content in members:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def class_names() -> list[str]:
    return list(standard_class_names())


def shard_members(labels: list[int], start: int = 0) -> list[tuple[str, bytes]]:
    named = [(f"s{start + i:07d}", label) for i, label in enumerate(labels)]
    return [m for key, label in named for m in ((f"{key}.jpg", jpeg(label)), (f"{key}.cls", str(label).encode()))]


def test_webdataset_folder(tmp_path: Path) -> None:
    root = tmp_path / "wds_imagenet1k"
    write_shards(root, [shard_members([7, 3, 999]), shard_members([3], start=3)], class_names())
    dataset = opened(tmp_path)
    assert list(dataset.images) == [f"s{i:07d}" for i in range(4)]
    assert list(dataset.class_indices) == [3, 7, 999]
    assert list(dataset.labels) == [1, 0, 2, 0]
    assert dataset.images["s0000003"].read() == jpeg(3)
    assert dataset.images["s0000003"].name == "wds_imagenet1k/test/1.tar/s0000003.jpg"
    assert dataset.report.label == "subset (4 of 50000)"


def test_webdataset_class_names_decide_what_labels_mean(tmp_path: Path) -> None:
    names = class_names()
    write_shards(tmp_path / "a" / "imagenet1k", [shard_members([1])], sorted(names))
    assert "class names differ" in refused(tmp_path / "a")
    write_shards(tmp_path / "b" / "imagenet1k", [shard_members([1])], names[:10])
    assert "10 class names, expected 1000" in refused(tmp_path / "b")
    # older exports: a few names were spelt otherwise
    write_shards(tmp_path / "c" / "imagenet1k", [shard_members([1])], ["old spelling", *names[1:]])
    assert len(opened(tmp_path / "c").images) == 1


def test_damaged_webdataset_is_named(tmp_path: Path) -> None:
    root = tmp_path / "imagenet1k"
    write_shards(root, [shard_members([1]), shard_members([2], start=1)], class_names())
    whole = (root / "test" / "1.tar").read_bytes()
    (root / "test" / "1.tar").write_bytes(whole[:1024])
    assert "1.tar" in refused(tmp_path)
    (root / "test" / "1.tar").unlink()
    assert "announces 2 shards, but 1.tar" in refused(tmp_path)
    (root / "test" / "nshards.txt").write_text("1")
    assert len(opened(tmp_path).images) == 1


def test_webdataset_label_out_of_range_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path / "imagenet1k", [[("a.jpg", jpeg()), ("a.cls", b"1000")]], class_names())
    assert "'1000' is no class index" in refused(tmp_path)
    write_shards(tmp_path / "x" / "imagenet1k", [[("a.jpg", jpeg())]], class_names())
    assert "no .cls member" in refused(tmp_path / "x")
