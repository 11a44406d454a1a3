"""Depth and label maps: values against OpenCV and hand-made files, and the ways in which a file can be wrong."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from dense_files import png_bytes, save, save_palette
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mtv.errors import DataError
from mtv.eval.datasets.ade20k import LAYOUT
from mtv.eval.datasets.base import CheckReport, FileRef, SegmentationSet
from mtv.eval.datasets.dense_decode import (
    DepthCheck,
    LabelCheck,
    decode_label_png,
    ranges,
    read_depth_metres,
    read_labels,
    to_train_ids,
)


def ref(path: Path) -> FileRef:
    return FileRef(path=path, name=path.name)


def one_label(path: Path, size: tuple[int, int]) -> SegmentationSet:
    """A set of one label map with the values of ADE20k."""
    return SegmentationSet(
        name="x",
        split="y",
        report=CheckReport(name="x", verdict="ok"),
        images={},
        labels={"a": ref(path)},
        sizes={"a": size},
        classes=LAYOUT.classes,
        raw_to_train=LAYOUT.table,
    )


@pytest.mark.parametrize(("encoding", "per_metre"), [("millimetres", 1000), ("metres_256", 256)])
def test_depth_equals_codes_over_scale(tmp_path: Path, encoding: str, per_metre: int) -> None:
    codes = np.random.default_rng(0).integers(0, 65535, (37, 53)).astype(np.uint16)
    codes[0, :3] = 0, 1, 20000
    path = save(tmp_path / "d.png", codes)
    depth = read_depth_metres(ref(path), encoding)  # type: ignore[arg-type]
    oracle = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.float64) / per_metre
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, oracle, rtol=1e-7)
    assert depth[0, 0] == 0


def test_a_map_without_depth_is_read_as_it_is(tmp_path: Path) -> None:
    path = save(tmp_path / "d.png", np.zeros((4, 5), np.uint16))
    assert not read_depth_metres(ref(path), "millimetres").any()


def test_broken_and_foreign_depth_files_are_named(tmp_path: Path) -> None:
    whole = save(tmp_path / "d.png", np.random.default_rng(0).integers(0, 9000, (60, 80)).astype(np.uint16))
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole.read_bytes()[:-400])
    (tmp_path / "empty.png").write_bytes(b"")
    save(tmp_path / "grey8.png", np.zeros((6, 8), np.uint8))
    save(tmp_path / "rgb.png", np.zeros((6, 8, 3), np.uint8))
    save(tmp_path / "photo.jpg", np.zeros((6, 8), np.uint8))
    for name, words in {
        "cut.png": "cannot be decoded",
        "empty.png": "not a PNG",
        "grey8.png": "depth is 8-bit",
        "rgb.png": "8-bit, not grey",
        "photo.jpg": "not a PNG",
        "absent.png": "cannot be read",
    }.items():
        with pytest.raises(DataError, match=words) as error:
            read_depth_metres(ref(tmp_path / name), "metres_256")
        assert name in error.value.message


def test_labels_are_mapped_once_by_table() -> None:
    """T1 and T2 of the protocol page: 0 and 255 are ignored, 150 is the last class, nothing ever becomes 254."""
    once = to_train_ids(np.array([[0, 1, 2, 150, 255]], np.uint8), LAYOUT.table, name="x")
    assert once.tolist() == [[255, 0, 1, 149, 255]]
    assert once.dtype == np.uint8
    twice = to_train_ids(once, LAYOUT.table, name="x")
    assert twice.tolist() == [[255, 255, 0, 148, 255]]  # what the check for shifted labels is there to prevent


@given(st.binary(min_size=12, max_size=12), st.sets(st.integers(0, 255), min_size=1, max_size=60))
def test_mapping_agrees_with_a_loop(content: bytes, known: set[int]) -> None:
    table = np.full(256, -1, np.int16)
    for index, value in enumerate(sorted(known)):
        table[value] = 255 if index % 5 == 4 else index
    raw = np.frombuffer(content, np.uint8).reshape(3, 4)
    bad = sorted({v for v in content if v not in known})
    if bad:
        with pytest.raises(DataError) as error:
            to_train_ids(raw, table, name="x.png")
        assert error.value.message == f"x.png: holds {ranges(bad)}, which no label of this set is"
        return
    expected = [[table[v] for v in row] for row in raw.tolist()]
    assert to_train_ids(raw, table, name="x").tolist() == expected


@given(st.lists(st.integers(0, 255), unique=True, min_size=1))
def test_ranges_name_exactly_the_values(values: list[int]) -> None:
    named = []
    for part in ranges(sorted(values)).split(", "):
        first, _, last = part.partition(" to ")
        named += list(range(int(first), int(last or first) + 1))
    assert named == sorted(values)


@pytest.mark.parametrize("bits", [4, 8])
def test_palette_indices_are_read_never_colours(tmp_path: Path, bits: int) -> None:
    """T5: as grey these indices would read 0 71 141 61 132 173."""
    palette = [(0, 0, 0), (200, 20, 0), (0, 240, 0), (60, 60, 70), (210, 100, 90), (250, 150, 90)]
    indices = np.array([[0, 1, 2], [3, 4, 5]])
    path = save_palette(tmp_path / "p.png", indices, palette, bits=bits)
    assert np.asarray(Image.open(path).convert("L")).tolist() != indices.tolist()
    assert decode_label_png(path.read_bytes(), name="p").tolist() == indices.tolist()
    dataset = one_label(path, (3, 2))
    assert read_labels(dataset, "a").tolist() == [[255, 0, 1], [2, 3, 4]]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_is_refused(bits: int) -> None:
    """Decoders stretch it: class 1 of a 4-bit file would be read as 17."""
    values = np.array([[0, 1], [1, 0]])
    content = png_bytes(values, bits=bits, colour=0)
    stretched = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    assert stretched.max() == 255 // (2**bits - 1)
    with pytest.raises(DataError, match=rf"x\.png: no label map \({bits}-bit grey\)"):
        decode_label_png(content, name="x.png")


def test_hand_made_8_bit_file_is_read() -> None:
    values = np.random.default_rng(1).integers(0, 151, (9, 14))
    assert decode_label_png(png_bytes(values, bits=8, colour=0), name="x").tolist() == values.tolist()


def test_broken_and_foreign_label_files_are_named(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 151, (60, 80)).astype(np.uint8)
    whole = save(tmp_path / "ok.png", labels)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:-300])
    save(tmp_path / "mask.png", labels[..., None].repeat(3, 2))
    save(tmp_path / "deep.png", labels.astype(np.uint16))
    save(tmp_path / "lossy.jpg", labels)
    save(tmp_path / "beyond.png", np.where(labels == 7, 151, labels).astype(np.uint8))
    assert read_labels(one_label(whole, (80, 60)), "a").shape == (60, 80)
    for name, words in {
        "cut.png": "cannot be decoded",
        "mask.png": "a colour mask",
        "deep.png": r"no label map \(16-bit grey\)",
        "lossy.jpg": "not a PNG",
        "beyond.png": "holds 151, which no label",
        "absent.png": "cannot be read",
    }.items():
        with pytest.raises(DataError, match=words) as error:
            read_labels(one_label(tmp_path / name, (80, 60)), "a")
        assert name in error.value.message
    with pytest.raises(DataError, match=r"ok\.png: the label map is 80 x 60, its picture 60 x 80"):
        read_labels(one_label(whole, (60, 80)), "a")


def test_checks_travel_to_worker_processes(tmp_path: Path) -> None:
    label = save(tmp_path / "l.png", np.full((3, 4), 9, np.uint8)).read_bytes()
    depth = save(tmp_path / "d.png", np.full((3, 4), 900, np.uint16)).read_bytes()
    check = pickle.loads(pickle.dumps(LabelCheck(raw_to_train=LAYOUT.table, size=(4, 3))))
    check(label, name="l")
    with pytest.raises(DataError, match="16-bit"):
        check(depth, name="d")
    check = pickle.loads(pickle.dumps(DepthCheck(encoding="millimetres", size=(4, 3))))
    check(depth, name="d")
    with pytest.raises(DataError, match="d: the depth map is 4 x 3, its picture 3 x 4"):
        DepthCheck(encoding="millimetres", size=(3, 4))(depth, name="d")
