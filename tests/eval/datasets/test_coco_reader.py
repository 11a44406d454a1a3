"""COCO reader: every layout gives the same set, the known wrong sets are refused by name (section 3.1 of the page)."""

from __future__ import annotations

import io
import json
import random
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtv.errors import DataError, UsageError
from mtv.eval.datasets.base import CaptionSet, CheckReport
from mtv.eval.datasets.captions import Captioned, build_caption_set, caption_fingerprint
from mtv.eval.datasets.coco import EXPECTED, KARPATHY_TEST, KARPATHY_VAL, VAL2017, id_hash, inspect, judge
from mtv.eval.datasets.coco_files import Found
from mtv.eval.datasets.registry import check_dataset, open_dataset

HEAD = b"\xff\xd8\xff\xe0" + b"\0" * 20
SET = {42: ["A dog.", " a cat\n", "x", "y", "z"], 7: [f"c{i}" for i in range(6)], 391895: [f"d{i}" for i in range(7)]}
"""COCO id to captions: 5, 6 and 7 of them."""


def images_2014(root: Path, ids: list[int]) -> None:
    (root / "val2014").mkdir(parents=True, exist_ok=True)
    for i in ids:
        (root / "val2014" / f"COCO_val2014_{i:012d}.jpg").write_bytes(HEAD)


def annotations(captions: dict[int, list[str]], seed: int = 0) -> dict[str, Any]:
    """COCO caption format; records of one picture keep their order, pictures are shuffled."""
    order = list(captions)
    random.Random(seed).shuffle(order)
    images = [{"id": i, "file_name": f"COCO_val2014_{i:012d}.jpg"} for i in order]
    notes = [(i, k) for k in range(7) for i in order if k < len(captions[i])]
    return {
        "images": images,
        "annotations": [{"id": n, "image_id": i, "caption": captions[i][k]} for n, (i, k) in enumerate(notes)],
    }


def karpathy(captions: dict[int, list[str]], **fields: Any) -> dict[str, Any]:
    records = [
        {
            "filepath": "val2014",
            "filename": f"COCO_val2014_{i:012d}.jpg",
            "cocoid": i,
            "split": "test",
            "sentences": [{"raw": c} for c in texts],
            **fields,
        }
        for i, texts in captions.items()
    ]
    return {"dataset": "coco", "images": [*records, {"filename": "x.jpg", "split": "restval", "sentences": []}]}


def put_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def opened(data: Path, split: str = "karpathy-test", **options: str) -> CaptionSet:
    report, dataset = inspect(data, split=split, **options)
    assert dataset is not None, report
    return dataset


def refused(data: Path, split: str = "karpathy-test") -> str:
    report, dataset = inspect(data, split=split)
    assert dataset is None
    assert report.verdict == "wrong", report
    assert report.repair
    return " ".join((*report.problems, report.repair))


def layout_karpathy(root: Path) -> None:
    images_2014(root, list(SET))
    put_json(root / "dataset_coco.json", karpathy(SET))


def layout_karpathy_reversed(root: Path) -> None:
    images_2014(root, list(SET))
    put_json(root / "annotations" / "dataset_coco.json", karpathy(dict(reversed(SET.items()))))
    (root / "val2014" / "._COCO_val2014_000000000042.jpg").write_bytes(b"x")
    (root / ".DS_Store").write_bytes(b"x")


def layout_coco_format(root: Path) -> None:
    images_2014(root, list(SET))
    put_json(root / "coco_test_karpathy.json", annotations(SET))


def layout_id_list(root: Path) -> None:
    images_2014(root, [*SET, 99])
    lines = [f"val2014/COCO_val2014_{i:012d}.jpg {i}" for i in SET]
    (root / "splits").mkdir()
    (root / "splits" / "karpathy_test_images.txt").write_text("\n".join(lines) + "\n")
    put_json(root / "annotations" / "captions_val2014.json", annotations({**SET, 99: ["other"]}, seed=1))


def layout_plain_ids_2017(root: Path) -> None:
    (root / "splits").mkdir(parents=True)
    (root / "splits" / "coco_karpathy_test.txt").write_text("\n".join(map(str, SET)))
    for folder, ids in (("val2017", [42]), ("train2017", [7, 391895])):
        (root / folder).mkdir()
        for i in ids:
            (root / folder / f"{i:012d}.jpg").write_bytes(HEAD)
        put_json(root / "annotations" / f"captions_{folder}.json", annotations({i: SET[i] for i in ids}))


LAYOUTS = [layout_karpathy, layout_karpathy_reversed, layout_coco_format, layout_id_list, layout_plain_ids_2017]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_r4_every_layout_gives_the_same_set_and_order(tmp_path: Path, layout: Any) -> None:
    (tmp_path / "coco").mkdir()
    layout(tmp_path / "coco")
    dataset = opened(tmp_path)
    assert list(dataset.images) == ["7", "42", "391895"]
    assert dataset.captions == tuple(SET[7] + SET[42] + SET[391895])
    assert dataset.caption_ids[:7] == ("7#0", "7#1", "7#2", "7#3", "7#4", "7#5", "42#0")
    np.testing.assert_array_equal(dataset.owner, [0] * 6 + [1] * 5 + [2] * 7)
    assert len(dataset.captions) == 18
    assert len(dataset.images) == 3
    assert dataset.report.verdict == "ok-but"
    assert dataset.report.label == "subset (3 of 5000)"
    assert all(ref.read() == HEAD for ref in dataset.images.values())
    reference = [Captioned(id=str(i), wanted="", file=None, captions=tuple(c)) for i, c in SET.items()]
    assert dataset.fingerprint == caption_fingerprint(reference)


def test_fingerprint_changes_with_captions_ids_and_option(tmp_path: Path) -> None:
    layout_karpathy(tmp_path / "a" / "coco")
    images_2014(tmp_path / "b" / "coco", list(SET))
    put_json(tmp_path / "b" / "coco" / "dataset_coco.json", karpathy({**SET, 42: ["A dog!", "a", "x", "y", "z"]}))
    prints = {opened(tmp_path / "a", captions=o).fingerprint for o in ("all", "first5", "first1")}
    assert len(prints | {opened(tmp_path / "b").fingerprint}) == 4


def test_captions_option(tmp_path: Path) -> None:
    layout_karpathy(tmp_path)
    first5, first1 = opened(tmp_path, captions="first5"), opened(tmp_path, captions="first1")
    assert first5.captions == tuple(SET[7][:5] + SET[42] + SET[391895][:5])
    assert first1.captions == (SET[7][0], SET[42][0], SET[391895][0])
    assert first1.caption_ids == ("7#0", "42#0", "391895#0")
    assert first5.report.label == "subset (3 of 5000), captions=first5"
    with pytest.raises(UsageError, match="unknown value of coco option captions 'first2'"):
        open_dataset("coco", tmp_path, captions="first2")
    with pytest.raises(UsageError, match="unknown coco split 'test'"):
        open_dataset("coco", tmp_path, split="test")
    with pytest.raises(UsageError, match="unknown coco option 'caption'; did you mean captions"):
        check_dataset("coco", tmp_path, caption="all")


def test_dataset_coco_variants_and_ambiguity(tmp_path: Path) -> None:
    layout_karpathy(tmp_path)
    put_json(tmp_path / "dataset_coco_mini.json", karpathy({42: SET[42]}))
    assert len(opened(tmp_path).images) == 3
    (tmp_path / "dataset_coco.json").unlink()
    assert list(opened(tmp_path).images) == ["42"]
    put_json(tmp_path / "dataset_coco_other.json", karpathy({7: SET[7]}))
    assert "dataset_coco_mini.json" in refused(tmp_path)


def test_val2017_is_a_split_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "val2017").mkdir()
    for i in SET:
        (tmp_path / "val2017" / f"{i:012d}.jpg").write_bytes(HEAD)
    content = annotations(SET)
    content["images"] = [{"id": i["id"], "file_name": f"{i['id']:012d}.jpg"} for i in content["images"]]
    put_json(tmp_path / "annotations" / "captions_val2017.json", content)
    dataset = opened(tmp_path, "val2017")
    assert dataset.split == "val2017"
    assert dataset.images["7"].name == "val2017/000000000007.jpg"
    assert dataset.report.expected == {"images": 5000, "captions": 25014}
    text = refused(tmp_path)
    assert "split file missing" in text
    assert "--set coco.split=val2017" in text


def test_val2014_without_a_split_file(tmp_path: Path) -> None:
    images_2014(tmp_path, list(SET))
    put_json(tmp_path / "annotations" / "captions_val2014.json", annotations(SET))
    text = refused(tmp_path)
    assert "split file missing" in text
    assert "val2014" in text
    assert "dataset_coco.json" in text
    assert "captions_val2017.json" in refused(tmp_path, "val2017")


def test_caption_without_image_and_image_without_caption_are_listed(tmp_path: Path) -> None:
    layout_karpathy(tmp_path / "a")
    (tmp_path / "a" / "val2014" / "COCO_val2014_000000000042.jpg").unlink()
    text = refused(tmp_path / "a")
    assert "1 of 3 pictures have no file: val2014/COCO_val2014_000000000042.jpg" in text
    images_2014(tmp_path / "b", list(SET))
    put_json(tmp_path / "b" / "dataset_coco.json", karpathy({**SET, 7: []}))
    text = refused(tmp_path / "b")
    assert "1 pictures have no caption: val2014/COCO_val2014_000000000007.jpg" in text


def test_id_list_needs_captions_and_ids(tmp_path: Path) -> None:
    layout_id_list(tmp_path)
    (tmp_path / "splits" / "karpathy_test_images.txt").write_text("7\nnonsense\n")
    assert "'nonsense'" in refused(tmp_path)
    (tmp_path / "splits" / "karpathy_test_images.txt").write_text("7\n42\n")
    (tmp_path / "annotations" / "captions_val2014.json").unlink()
    assert "captions_val2014.json is not there" in refused(tmp_path)


def test_broken_files_are_named_with_the_field(tmp_path: Path) -> None:
    images_2014(tmp_path, list(SET))
    path = tmp_path / "dataset_coco.json"
    whole = json.dumps(karpathy(SET))
    path.write_text(whole[: len(whole) // 2])
    assert "dataset_coco.json: not valid JSON at line 1" in refused(tmp_path)
    put_json(path, {"annotations": []})
    assert "no list `images`" in refused(tmp_path)
    content = karpathy(SET)
    del content["images"][1]["sentences"]
    put_json(path, content)
    assert "images[1] has no field `sentences`" in refused(tmp_path)
    put_json(path, karpathy(SET, cocoid=None))
    assert "`cocoid`" in refused(tmp_path)
    put_json(path, karpathy(SET, split="val"))
    assert "no picture with split 'test'; the file has: restval, val" in refused(tmp_path)


def shards(root: Path, captions: list[list[str]], kind: str = "retrieval") -> None:
    (root / "test").mkdir(parents=True)
    (root / "dataset_type.txt").write_text(f"{kind}\n")
    with tarfile.open(root / "test" / "0.tar", "w") as tar:
        for i, texts in enumerate(captions):
            # CLIP_benchmark writes a newline inside a caption as backslash-n
            text = "\n".join(t.replace("\n", r"\n") for t in texts)
            for ext, content in (("jpg", HEAD), ("txt", text.encode())):
                info = tarfile.TarInfo(f"s{i:07d}.{ext}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def test_webdataset_captions_are_raw_again(tmp_path: Path) -> None:
    shards(tmp_path / "wds_mscoco_captions", [["one\n", "two, three"], ["x"]])
    dataset = opened(tmp_path)
    assert dataset.captions == ("one\n", "two, three", "x")
    assert list(dataset.images) == ["s0000000", "s0000001"]
    assert dataset.images["s0000001"].read() == HEAD
    assert dataset.report.label == "subset (2 of 5000)"


def test_truncated_webdataset_is_named(tmp_path: Path) -> None:
    shards(tmp_path / "coco", [["one"], ["two"]])
    tar = tmp_path / "coco" / "test" / "0.tar"
    tar.write_bytes(tar.read_bytes()[:2048])
    assert "0.tar" in refused(tmp_path)


def found(counts: list[int], ids: list[int] | None = None) -> Found:
    keys = ids if ids is not None else list(range(1, len(counts) + 1))
    pictures = tuple(
        Captioned(id=str(i), wanted="", file=None, captions=tuple("abcdefg"[:c]))
        for i, c in zip(keys, counts, strict=True)
    )
    return Found(layout="generated", pictures=pictures, with_ids=ids is not None)


FULL = [5] * 4990 + [6] * 10


def test_r6_counts_without_ids() -> None:
    assert sum(FULL) == 25_010
    assert judge(found(FULL), "karpathy-test", "all").verdict == "ok"
    val = judge(found([5] * 4987 + [6] * 12 + [7]), "karpathy-test", "all")
    assert val.verdict == "wrong"
    assert "val2017" in val.problems[0]
    assert "--set coco.split=val2017" in val.repair
    for counts, label in (
        ([5] * 5000, "captions=first5 (25000 of 25010)"),
        ([1] * 5000, "captions=first1 (5000 of 25010)"),
        ([5] * 1000, "subset (1000 of 5000)"),
    ):
        judged = judge(found(counts), "karpathy-test", "all")
        assert (judged.verdict, judged.label) == ("ok-but", label)
    assert "1k fold" in judged.problems[1]
    assert judge(found(FULL), "karpathy-test", "first5").label == "captions=first5"


@pytest.mark.parametrize(("n", "words"), [(40_504, "all of val2014"), (123_287, "all of train2014 and val2014")])
def test_r6_whole_sets(n: int, words: str) -> None:
    judged = judge(found([5] * n), "karpathy-test", "all")
    assert judged.verdict == "wrong"
    assert words in judged.problems[0]
    assert "split file is missing" in judged.problems[0]


def test_r6_other_5000_ids_run_under_a_label() -> None:
    judged = judge(found(FULL, list(range(1, 5001))), "karpathy-test", "all")
    assert (judged.verdict, judged.label) == ("ok-but", "5000 other images, not karpathy-test")


def karpathy_ids(real_data: Path, which: str) -> list[int]:
    path = real_data / "coco" / "splits" / f"karpathy_{which}_images.txt"
    if not path.is_file():
        pytest.skip(f"{path} not there")
    return [int(line.split()[-1]) for line in path.read_text().splitlines() if line]


def test_r6_id_hashes_of_the_real_lists(real_data: Path) -> None:
    test, val = karpathy_ids(real_data, "test"), karpathy_ids(real_data, "val")
    assert id_hash(test) == KARPATHY_TEST
    assert id_hash(random.Random(0).sample(test, 5000)) == KARPATHY_TEST
    assert id_hash(val) == KARPATHY_VAL
    assert judge(found(FULL, test), "karpathy-test", "all").verdict == "ok"
    judged = judge(found(FULL, val), "karpathy-test", "all")
    assert judged.verdict == "wrong"
    assert "Karpathy validation split" in judged.problems[0]


def test_r6_real_val2017_captions(real_data: Path, tmp_path: Path) -> None:
    import gzip

    packed = real_data / "coco" / "annotations_full" / "captions_val2017.json.gz"
    if not packed.is_file():
        pytest.skip(f"{packed} not there")
    content = json.loads(gzip.decompress(packed.read_bytes()))
    ids = [i["id"] for i in content["images"]]
    assert id_hash(ids) == VAL2017
    # the true layout with 5,000 links to one picture
    put_json(tmp_path / "annotations" / "captions_val2017.json", content)
    (tmp_path / "val2017").mkdir()
    (tmp_path / "one.jpg").write_bytes(HEAD)
    for i in ids:
        (tmp_path / "val2017" / f"{i:012d}.jpg").hardlink_to(tmp_path / "one.jpg")
    dataset = opened(tmp_path, "val2017")
    assert dataset.report.verdict == "ok"
    assert dataset.report.label == ""
    assert dataset.report.found == EXPECTED["val2017"] == {"images": 5000, "captions": 25014}
    assert sum(c != c.strip() for c in dataset.captions) == 3541
    assert list(dataset.images) == [str(i) for i in sorted(ids)]
    # offered as the Karpathy test split under its usual wrong name
    put_json(tmp_path / "coco_test_karpathy.json", content)
    text = refused(tmp_path)
    assert "this is val2017 (5000 pictures, 25014 captions)" in text
    assert "--set coco.split=val2017" in text


def test_full_karpathy_test_from_the_real_id_list(real_data: Path, tmp_path: Path) -> None:
    ids = karpathy_ids(real_data, "test")
    (tmp_path / "val2014").mkdir()
    (tmp_path / "one.jpg").write_bytes(HEAD)
    for i in ids:
        (tmp_path / "val2014" / f"COCO_val2014_{i:012d}.jpg").hardlink_to(tmp_path / "one.jpg")
    captions = {i: [f"{i} {k}" for k in range(c)] for i, c in zip(ids, FULL, strict=True)}
    put_json(tmp_path / "annotations" / "captions_val2014.json", annotations({**captions, 1: ["not in the split"]}))
    (tmp_path / "karpathy_test_images.txt").write_text("\n".join(map(str, ids)))
    dataset = opened(tmp_path)
    assert dataset.report.verdict == "ok"
    assert dataset.report.found == {"images": 5000, "captions": 25010}
    assert [dataset.captions[k] for k in np.flatnonzero(dataset.owner == 17)] == captions[sorted(ids)[17]]


def test_real_mini_sets_run_under_their_label(real_data: Path) -> None:
    test, val = opened(real_data), opened(real_data, "val2017")
    for dataset, split in ((test, "karpathy-test"), (val, "val2017")):
        assert dataset.split == split
        assert dataset.report.verdict == "ok-but"
        assert dataset.report.label == "subset (79 of 5000)"
        assert dataset.report.found == {"images": 79, "captions": 395}
        assert np.bincount(dataset.owner).tolist() == [5] * 79
    assert test.captions == val.captions
    assert test.images["397133"].name == "coco/val2017/000000397133.jpg"


def test_build_gives_one_owner_per_caption() -> None:
    pictures = [Captioned(id=i, wanted=i, file=None, captions=c) for i, c in (("a", ("x", "y")), ("b", ("z",)))]
    report = CheckReport(name="coco", verdict="ok", split="s")
    dataset = build_caption_set("coco", report, pictures)
    assert dataset.owner.tolist() == [0, 0, 1]
    assert dataset.owner.dtype == np.int64


def test_absent_set_is_missing(tmp_path: Path) -> None:
    assert inspect(tmp_path, split="karpathy-test")[0].verdict == "missing"
    with pytest.raises(DataError, match=r"val2014/COCO_val2014"):
        open_dataset("coco", tmp_path)
