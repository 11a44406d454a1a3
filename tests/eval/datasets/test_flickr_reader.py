"""Flickr readers and the caption files: CSV quoting (R7), split files, whole sets, and the small real set."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtv.errors import DataError
from mtv.eval.datasets.base import CaptionSet
from mtv.eval.datasets.captions import Captioned, read_caption_csv, read_caption_tokens
from mtv.eval.datasets.flickr import flickr8k, flickr30k
from mtv.eval.datasets.flickr_files import Found

HEAD = b"\xff\xd8\xff\xe0" + b"\0" * 20
SET = {f"{n}_ab.jpg": [f'A dog, no. {n}, says "hi" .', "plain", " outer blanks ", "d", "e"] for n in ("20", "3", "100")}


def images(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(HEAD)


def csv_text(captions: dict[str, list[str]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["image", "caption"])
    writer.writerows((name, c) for name, texts in captions.items() for c in texts)
    return stream.getvalue()


def opened(data: Path, reader: object = flickr8k, **options: str) -> CaptionSet:
    report, dataset = reader.inspect(data, split="karpathy-test", **options)  # type: ignore[attr-defined]
    assert dataset is not None, report
    return dataset


def refused(data: Path, reader: object = flickr8k) -> str:
    report, dataset = reader.inspect(data, split="karpathy-test")  # type: ignore[attr-defined]
    assert dataset is None
    assert report.verdict == "wrong", report
    assert report.repair
    return " ".join((*report.problems, report.repair))


def test_r7_quoted_rows_lose_their_quotes_and_keep_their_commas(tmp_path: Path) -> None:
    path = tmp_path / "captions.txt"
    path.write_text(
        "image,caption\n"
        'a.jpg,"A dog, a cat ."\n'
        'a.jpg,"He says ""stop"", and goes ."\n'
        "a.jpg,never quoted, with a comma .\n"
        'b.jpg,a "word" inside\n'
        'b.jpg,"opens" and goes on\n'
        "b.jpg,plain\r\n",
        encoding="utf-8",
    )
    captions = read_caption_csv(path)
    assert captions["a.jpg"] == ["A dog, a cat .", 'He says "stop", and goes .', "never quoted, with a comma ."]
    assert captions["b.jpg"] == ['a "word" inside', '"opens" and goes on', "plain"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(
        # Python 3.10 cannot write NUL as CSV.
        st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), min_size=1),
        min_size=1,
        max_size=6,
    )
)
def test_r7_whatever_a_csv_writer_quotes_is_read_back(tmp_path: Path, texts: list[str]) -> None:
    path = tmp_path / "captions.txt"
    path.write_bytes(csv_text({"a.jpg": texts}).encode("utf-8"))
    assert read_caption_csv(path) == {"a.jpg": texts}


def test_lines_that_are_no_rows_are_named(tmp_path: Path) -> None:
    path = tmp_path / "captions.txt"
    path.write_text("image,caption\na.jpg,x\nthe second half of a caption\n")
    with pytest.raises(DataError, match=r"captions\.txt: line 3"):
        read_caption_csv(path)
    path.write_text("a.jpg#0\tA dog .\na.jpg#1\tA, cat\nb.jpg#0 no tab\n")
    with pytest.raises(DataError, match=r"line 3 is not `name#k<TAB>caption`"):
        read_caption_tokens(path)
    path.write_text("a.jpg#0\tA dog .\na.jpg#1\tA, cat #1\n")
    assert read_caption_tokens(path) == {"a.jpg": ["A dog .", "A, cat #1"]}


def karpathy(captions: dict[str, list[str]], split: str = "test") -> str:
    records = [
        {"filename": n, "split": split, "sentences": [{"raw": c} for c in texts]} for n, texts in captions.items()
    ]
    return json.dumps({"images": records})


def layout_8k(root: Path, kind: str) -> None:
    rest = {f"9{i}_cd.jpg": ["train"] * 5 for i in range(4)}
    images(root / ("Flicker8k_Dataset" if kind == "tokens" else "Images"), [*SET, *rest])
    if kind == "karpathy":
        (root / "dataset_flickr8k.json").write_text(karpathy(SET))
        return
    if kind == "tokens":
        lines = [f"{n}#{k}\t{c}" for n, texts in {**rest, **SET}.items() for k, c in enumerate(texts)]
        (root / "Flickr8k_text").mkdir()
        (root / "Flickr8k_text" / "Flickr8k.token.txt").write_text("\n".join(lines))
        (root / "Flickr8k_text" / "Flickr_8k.testImages.txt").write_text("\n".join(SET))
        return
    (root / "captions.txt").write_text(csv_text({**rest, **SET}))
    (root / "Flickr_8k.testImages.txt").write_text("\n".join(reversed(SET)) + "\n\n")
    (root / "Images" / "._20_ab.jpg").write_bytes(b"x")


@pytest.mark.parametrize("kind", ["karpathy", "tokens", "csv"])
def test_r4_flickr8k_layouts_give_one_set(tmp_path: Path, kind: str) -> None:
    (tmp_path / "flickr8k").mkdir()
    layout_8k(tmp_path / "flickr8k", kind)
    dataset = opened(tmp_path)
    names = sorted(SET)
    assert list(dataset.images) == [n.removesuffix(".jpg") for n in names]
    assert dataset.captions == tuple(c for n in names for c in SET[n])
    np.testing.assert_array_equal(dataset.owner, np.repeat(np.arange(3), 5))
    assert dataset.report.label == "subset (3 of 1000)"
    (tmp_path / "other").mkdir()
    layout_8k(tmp_path / "other" / "flickr8k", "karpathy")
    assert dataset.fingerprint == opened(tmp_path / "other").fingerprint


def test_flickr30k_layouts(tmp_path: Path) -> None:
    numbers = {f"{n}.jpg": texts for n, texts in zip((1007129816, 36979, 65567), SET.values(), strict=True)}
    for kind in ("json", "txt"):
        root = tmp_path / kind / "flickr30k"
        images(root / "flickr30k-images", [*numbers, "1.jpg"])
        if kind == "json":
            (root / "dataset_flickr30k.json").write_text(karpathy(numbers))
        else:
            (root / "flickr30k_test_karpathy.txt").write_text(csv_text(numbers))
    a, b = opened(tmp_path / "json", flickr30k), opened(tmp_path / "txt", flickr30k)
    assert a.fingerprint == b.fingerprint
    assert list(a.images) == list(b.images) == ["1007129816", "36979", "65567"]
    assert a.name == "flickr30k"
    assert flickr8k.inspect(tmp_path / "json", split="karpathy-test")[0].verdict == "missing"


def found(ids: list[str], with_split: bool, per_image: int = 5) -> Found:
    captions = tuple("abcdefg"[:per_image])
    pictures = tuple(Captioned(id=i, wanted=i, file=None, captions=captions) for i in ids)
    return Found(layout="generated", pictures=pictures, with_split=with_split)


def test_verdicts_by_count_and_ids() -> None:
    other = [f"x{i}" for i in range(40_000)]
    official = [*flickr8k.landmarks, *other[:996]]
    assert flickr8k.judge(found(official, True), "all").verdict == "ok"
    assert flickr8k.judge(found(official, True), "first1").label == "captions=first1"
    assert flickr8k.judge(found(official, True, 1), "all").label == "captions (1000 of 5000)"
    # any other 1,000 pictures: same counts, other ids
    judged = flickr8k.judge(found(other[:1000], True), "all")
    assert (judged.verdict, judged.label) == ("ok-but", "1000 other images, not Karpathy test")
    judged = flickr8k.judge(found(other[:1000], False), "all")
    assert (judged.verdict, judged.label) == ("ok-but", "no split file: 1000 of 8091 (not Karpathy test)")
    for n, with_split, words in ((8091, False, "split file missing"), (1001, False, "split file missing")):
        judged = flickr8k.judge(found(other[:n], with_split), "all")
        assert judged.verdict == "wrong"
        assert words in judged.problems[0]
        assert "Flickr_8k.testImages.txt" in judged.repair
    judged = flickr30k.judge(found(other[:31_783], True), "all")
    assert judged.verdict == "wrong"
    assert "all pictures are taken for the test split" in judged.problems[0]
    assert flickr30k.judge(found(other[:1014], True), "all").label == "1014 images instead of 1000"


def test_whole_flickr8k_without_split_file_is_refused(tmp_path: Path) -> None:
    names = [f"{i}_x.jpg" for i in range(1001)]
    images(tmp_path / "Images", names)
    (tmp_path / "captions.txt").write_text(csv_text({n: ["a", "b"] for n in names}))
    text = refused(tmp_path)
    assert "split file missing: 1001 pictures, 2002 captions" in text
    # a list of test pictures that names only some of them makes it usable
    (tmp_path / "Flickr_8k.testImages.txt").write_text("\n".join(names[:10]))
    assert len(opened(tmp_path).images) == 10


def test_join_problems_are_listed(tmp_path: Path) -> None:
    root = tmp_path / "flickr8k"
    images(root / "Images", ["a.jpg", "b.jpg"])
    (root / "captions.txt").write_text(csv_text({"a.jpg": ["x"], "c.jpg": ["y"]}))
    text = refused(tmp_path)
    assert "1 of 3 pictures have no file: c.jpg" in text
    assert "1 pictures have no caption: b.jpg" in text
    (root / "captions.txt").unlink()
    report = flickr8k.inspect(tmp_path / "flickr8k", split="karpathy-test")[0]
    assert report.verdict == "missing"


def test_whole_flickr30k_folder_without_captions_is_refused(tmp_path: Path) -> None:
    images(tmp_path / "flickr30k" / "flickr30k-images", ["1.jpg"])
    text = refused(tmp_path, flickr30k)
    assert "no captions" in text
    assert "flickr30k_test_karpathy.txt" in text


def test_real_flickr8k_sample(real_data: Path) -> None:
    path = real_data / "flickr8k" / "captions.txt"
    if not path.is_file():
        pytest.skip(f"{path} not there")
    dataset = opened(real_data)
    assert dataset.report.verdict == "ok-but"
    assert dataset.report.label == "no split file: 1000 of 8091 (not Karpathy test)"
    assert dataset.report.found == {"images": 1000, "captions": 5000}
    # independent oracle: the whole file through csv
    with path.open(newline="", encoding="utf-8") as f:
        rows = [(r["image"].removesuffix(".jpg"), r["caption"]) for r in csv.DictReader(f)]
    ids = list(dataset.images)
    assert sorted(zip((ids[o] for o in dataset.owner), dataset.captions, strict=True)) == sorted(rows)
    raw = path.read_text(encoding="utf-8").splitlines()
    assert sum(line.partition(",")[2].startswith('"') for line in raw) == 286
    assert not any(c.startswith('"') and c.endswith('"') for c in dataset.captions)
    assert ids == sorted(ids)
    assert dataset.images[ids[0]].read()[:3] == b"\xff\xd8\xff"
