"""ImageNet's layout with classes of its own: `classnames.txt` beside `val/` defines the label space."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mtv.errors import DataError
from mtv.eval.datasets.base import CheckReport, ClassificationSet
from mtv.eval.datasets.describe import describe_report
from mtv.eval.datasets.imagenet import inspect
from mtv.eval.datasets.imagenet_classes import imagenet_wnids, other_classes
from mtv.eval.datasets.registry import check_dataset

NAMES = {"n90000003": "mug", "n90000001": "table lamp", "n90000002": "dog"}
FILES = ("n90000001/a.JPEG", "n90000001/b.JPEG", "n90000002/a.JPEG", "n90000003/train_0001.jpg")


def write(root: Path, files: tuple[str, ...] = FILES, names: dict[str, str] | str | None = None) -> Path:
    """`imagenet/{classnames.txt, val/...}`; `names` may be the text of the file, None for `NAMES`."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG")
    for name in files:
        path = root / "imagenet" / "val" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stream.getvalue())
    entries = NAMES if names is None else names
    text = entries if isinstance(entries, str) else "".join(f"{k} {v}\n" for k, v in entries.items())
    if text:
        (root / "imagenet" / "classnames.txt").write_text(text, encoding="utf-8")
    return root


def opened(data: Path) -> tuple[CheckReport, ClassificationSet]:
    report, dataset = inspect(data, split="val")
    assert dataset is not None, report
    assert report.verdict == "ok-but"
    return report, dataset


def refused(data: Path) -> str:
    report, dataset = inspect(data, split="val")
    assert dataset is None
    assert report.verdict == "wrong"
    assert report.repair
    return " ".join((*report.problems, report.repair))


def test_classes_are_those_of_the_file_in_the_order_of_their_wnids(tmp_path: Path) -> None:
    report, dataset = opened(write(tmp_path))
    assert report.label == "other classes (3)"
    assert report.found == {"images": 4, "classes": 3}
    assert "classnames.txt" in report.layout
    assert dataset.classes == ("n90000001", "n90000002", "n90000003")
    assert dataset.class_names == dataset.titles == ("table lamp", "dog", "mug")
    assert list(dataset.images) == [
        "n90000001/a.JPEG",
        "n90000001/b.JPEG",
        "n90000002/a.JPEG",
        "n90000003/train_0001.jpg",
    ]
    np.testing.assert_array_equal(dataset.labels, [0, 0, 1, 2])
    np.testing.assert_array_equal(dataset.class_indices, [0, 1, 2])
    # Nothing of ImageNet's counts is expected of it.
    assert "of 50,000" not in describe_report(report)
    assert "3 classes of its own" in describe_report(report)


def test_a_class_without_pictures_stays_in_the_label_space(tmp_path: Path) -> None:
    (write(tmp_path, FILES[2:]) / "imagenet" / "val" / "n90000001").mkdir()
    report, dataset = opened(tmp_path)
    assert report.label == "other classes (2 of 3)"
    assert dataset.classes == ("n90000002", "n90000003")
    assert dataset.titles == ("dog", "mug")
    assert dataset.class_names == ("table lamp", "dog", "mug")
    np.testing.assert_array_equal(dataset.class_indices, [1, 2])
    np.testing.assert_array_equal(dataset.labels, [0, 1])
    assert any("missing: n90000001" in p for p in report.problems)
    assert any("without a picture: n90000001" in p for p in report.problems)


def test_the_fingerprint_covers_names_labels_and_pictures(tmp_path: Path) -> None:
    def fingerprint(folder: str, *args: object) -> str:
        return opened(write(tmp_path / folder, *args))[0].fingerprint  # type: ignore[arg-type]

    first = fingerprint("a")
    assert fingerprint("reordered", FILES[::-1], dict(reversed(NAMES.items()))) == first
    others = [
        fingerprint("renamed", FILES, NAMES | {"n90000003": "cup"}),
        fingerprint("swapped", FILES, NAMES | {"n90000003": "dog", "n90000002": "mug"}),
        fingerprint("fewer", FILES[:-1]),
        fingerprint("moved", (*FILES[:-1], "n90000001/train_0001.jpg")),
        # A class without pictures counts: it is a candidate where classes=all.
        fingerprint("wider", FILES, NAMES | {"n90000004": "tree"}),
    ]
    assert len({first, *others}) == 6


def test_data_may_be_the_root_or_val_itself(tmp_path: Path) -> None:
    write(tmp_path)
    places = (tmp_path, tmp_path / "imagenet", tmp_path / "imagenet" / "val")
    assert {opened(p)[0].fingerprint for p in places} == {opened(tmp_path)[0].fingerprint}
    assert all(opened(p)[1].class_names is not None for p in places)


def test_blanks_tabs_and_empty_lines_in_the_file(tmp_path: Path) -> None:
    text = "\ufeffn90000003\tmug\r\n\r\n  n90000001   table   lamp  \nn90000002 dog's \u00e9lan\n"
    _, dataset = opened(write(tmp_path, names=text))
    assert dataset.class_names == ("table lamp", "dog's \u00e9lan", "mug")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("n90000001 lamp\nn90000002\nn90000003 mug\n", ("line 2", "'n90000002'", "n90000001 mug")),
        ("n90000001 lamp\ndog\nn90000003 mug\n", ("line 2", "'dog'")),
        ("n90000001 lamp\nn900000022 dog\n", ("line 2", "n900000022")),
        ("n90000001 lamp\nn90000002 dog\nn90000001 mug\n", ("line 3", "n90000001 occurs twice")),
        ("n90000001 lamp\nn90000002 dog\n", ("does not name: n90000003", "Add a line")),
    ],
)
def test_a_damaged_file_is_refused_by_its_line(tmp_path: Path, text: str, named: tuple[str, ...]) -> None:
    message = refused(write(tmp_path, names=text))
    assert "classnames.txt" in message
    assert all(part in message for part in named), message


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "imagenet" / "classnames.txt").write_bytes(b"n90000001 \xff\xfe\x00mug\n")
    assert "not UTF-8" in refused(tmp_path)


@pytest.mark.parametrize("names", ["", "mug\nlamp\ndog\n"])
def test_without_names_foreign_classes_stay_refused_and_the_remedy_tells(tmp_path: Path, names: str) -> None:
    """A list of names alone is CLIP_benchmark's file for shards and says nothing about folders."""
    message = refused(write(tmp_path, names=names))
    assert "not among the 1000 ImageNet-1k wnids" in message
    assert "`<wnid> <name>`" in message
    assert "classnames.txt beside val/" in message


def test_imagenets_own_wnids_keep_imagenets_label_space(tmp_path: Path) -> None:
    wnids = imagenet_wnids()
    files = (f"{wnids[7]}/ILSVRC2012_val_00000001.JPEG", f"{wnids[3]}/x.JPEG")
    plain = opened(write(tmp_path / "plain", files, ""))
    named = opened(write(tmp_path / "named", files, {w: f"name {i}" for i, w in enumerate(wnids)}))
    assert named[0].label == plain[0].label == "subset (2 of 50000)"
    assert named[0].fingerprint == plain[0].fingerprint
    assert named[1].class_names is None
    np.testing.assert_array_equal(named[1].class_indices, [3, 7])
    # One foreign class makes it a set of its own, in which ImageNet's wnids are names like any other.
    mixed = opened(write(tmp_path / "mixed", files, {wnids[3]: "a", wnids[7]: "b", "n90000001": "c"}))
    assert mixed[0].label == "other classes (2 of 3)"
    np.testing.assert_array_equal(mixed[1].class_indices, [0, 1])


def test_a_full_check_decodes_it(tmp_path: Path) -> None:
    report = check_dataset("imagenet", write(tmp_path), full=True)
    assert (report.verdict, report.checked, report.label) == ("ok-but", "full", "other classes (3)")
    (tmp_path / "imagenet" / "val" / "n90000002" / "a.JPEG").write_bytes(b"\xff\xd8\xff broken")
    broken = check_dataset("imagenet", tmp_path, full=True)
    assert broken.verdict == "wrong"
    assert any("n90000002/a.JPEG" in p for p in broken.problems)


wnid = st.integers(0, 99_999_999).map("n{:08d}".format)
name = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8)


@given(st.dictionaries(wnid, st.lists(name, min_size=1, max_size=3), min_size=1, max_size=8), st.randoms())
def test_the_file_is_read_back_whatever_its_order(tmp_path_factory: pytest.TempPathFactory, classes, rng) -> None:  # type: ignore[no-untyped-def]
    known = set(imagenet_wnids())
    entries = list(classes.items())
    rng.shuffle(entries)
    path = tmp_path_factory.mktemp("names") / "classnames.txt"
    path.write_text("".join(f"{w} {'  '.join(words)}\n" for w, words in entries), encoding="utf-8")
    found = other_classes(path)
    if set(classes) <= known:
        assert found is None
    else:
        assert found is not None
        assert found.wnids == tuple(sorted(classes))
        assert dict(zip(found.wnids, found.names, strict=True)) == {w: " ".join(words) for w, words in classes.items()}


def test_an_absent_file_defines_nothing(tmp_path: Path) -> None:
    assert other_classes(tmp_path / "classnames.txt") is None
    (tmp_path / "classnames.txt").write_text("n90000001 mug\nn90000001 cup\n")
    with pytest.raises(DataError, match="line 2: n90000001 occurs twice"):
        other_classes(tmp_path / "classnames.txt")
