"""NYUv2 reader: lists in every spelling, the real frames, a set of the full size, and the wrong sets by name."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from dense_files import codes, link, save, view
from PIL import Image

from mtv.errors import DataError
from mtv.eval.cli import invoke
from mtv.eval.datasets.base import CheckReport, DepthSet
from mtv.eval.datasets.dense_decode import read_depth_metres
from mtv.eval.datasets.depth_lists import read_depth_list
from mtv.eval.datasets.full_check import full_check
from mtv.eval.datasets.nyuv2 import FRAMES, inspect
from mtv.eval.datasets.registry import open_dataset

FOCAL = "518.8579"


def line(name: str) -> str:
    """`bath/00001` as a line of a list."""
    scene, number = name.split("/")
    return f"{scene}/rgb_{number}.jpg {scene}/sync_depth_{number}.png {FOCAL}"


def write_frame(base: Path, name: str, seed: int, *, size: tuple[int, int] = (160, 120), far: float = 6.0) -> None:
    """A picture with raw depth: the left columns are holes."""
    seen = view(*size, seed, far=far)
    scene, number = name.split("/")
    save(base / scene / f"rgb_{number}.jpg", seen.rgb_HW3)
    save(base / scene / f"sync_depth_{number}.png", codes(seen.metres_HW, 1000, holes=0.1))


def build(
    root: Path, names: Sequence[str] = ("bath/00003", "attic/00007", "bath/00001"), *, split: str = "test"
) -> Path:
    """A list with its frames in the BTS layout."""
    for seed, name in enumerate(names):
        write_frame(root / "official_splits" / split, name, seed)
    (root / f"nyu_{split}.txt").write_text("\n".join(line(n) for n in names))
    return root


def opened(data: Path, split: str = "test") -> DepthSet:
    """The set, or a failure that shows the report."""
    report, dataset = inspect(data, split=split)
    assert dataset is not None, report
    return dataset


def refused(data: Path, split: str = "test") -> CheckReport:
    """The report of a refused set."""
    report, dataset = inspect(data, split=split)
    assert dataset is None
    assert report.verdict == "wrong"
    assert report.repair
    return report


def problems(data: Path, split: str = "test") -> str:
    return "\n".join(refused(data, split).problems)


def each_depth(root: Path) -> list[Path]:
    return sorted(root.rglob("sync_depth_*.png"))


def test_items_carry_what_the_tasks_need(tmp_path: Path) -> None:
    dataset = opened(build(tmp_path / "up" / "nyuv2").parents[1])
    assert list(dataset.images) == list(dataset.items) == ["attic/rgb_00007", "bath/rgb_00001", "bath/rgb_00003"]
    item = dataset.items["bath/rgb_00003"]
    assert (item.group, item.size, item.focal) == ("bath", (160, 120), 518.8579)
    assert dataset.depth_encoding == "millimetres"
    depth = read_depth_metres(item.depth, dataset.depth_encoding)
    expected = view(160, 120, 0).metres_HW
    expected[:, :16] = 0
    np.testing.assert_allclose(depth, expected, atol=5.1e-4)
    assert set(dataset.extra_files) == set(dataset.checks) == {f"{k}.depth" for k in dataset.items}
    assert dataset.report.found == {"images": 3, "scenes": 2, "without depth": 0}
    assert dataset.report.label == "subset (3 of 654), 160 x 120"
    assert full_check(dataset, data=tmp_path).verdict == "ok-but"


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n\r\n"])
@pytest.mark.parametrize("name", ["nyu_{}.txt", "nyudepthv2_{}_files_with_gt.txt"])
def test_spellings_of_the_list_do_not_matter(tmp_path: Path, slash: str, end: str, name: str) -> None:
    """A4: a leading slash must not discard the root, the last line may lack its newline."""
    fingerprint = opened(build(tmp_path / "a")).fingerprint
    root = build(tmp_path / "b")
    (root / "nyu_test.txt").unlink()
    rows = [slash + line(n).replace(" ", f" {slash}", 1) for n in ("bath/00001", "bath/00003", "attic/00007")]
    rows.append(f"{slash}gone/rgb_00009.jpg None {FOCAL}")
    (root / name.format("test")).write_bytes(("\n".join(rows) + end).encode())
    dataset = opened(root)
    assert dataset.fingerprint == fingerprint
    assert dataset.report.found["without depth"] == 1


def test_the_published_lists_parse(tmp_path: Path, real_data: Path) -> None:
    path = real_data / "nyuv2" / "nyudepthv2_test_files_with_gt_full654.txt"
    assert path.read_bytes()[-1:] != b"\n"
    listing = read_depth_list(path, name=path.name)
    assert len(listing.lines) == FRAMES["test"]
    assert {row.focal for row in listing.lines} == {518.8579}
    train = tmp_path / "nyu_train.txt"
    rows = [
        f"/room_{i % 249:04d}/rgb_{i:05d}.jpg /room_{i % 249:04d}/sync_depth_{i:05d}.png {FOCAL}" for i in range(24231)
    ]
    train.write_text("\n".join(rows) + "\n")
    lines = read_depth_list(train, name=train.name).lines
    assert len(lines) == FRAMES["train"]
    assert not any(row.image.startswith("/") or row.depth.startswith("/") for row in lines)
    assert [row.image for row in lines] == sorted(r.split()[0][1:] for r in rows)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("bath/rgb_00001.jpg", "line 2: expected `picture depth focal`"),
        ("bath/rgb_00001.jpg bath/sync_depth_00001.png wide", "line 2: expected `picture depth focal`"),
        ("bath/rgb_00001.jpg bath/sync_depth_00001.png -1", "line 2: expected `picture depth focal`"),
        ("bath/rgb_00001.jpg bath/sync_depth_00001.png nan", "line 2: expected `picture depth focal`"),
        (f"../rgb_00001.jpg bath/sync_depth_00001.png {FOCAL}", "line 2: expected `picture depth focal`"),
        (f"attic/rgb_00007.jpg bath/sync_depth_00001.png {FOCAL}", "line 2: attic/rgb_00007.jpg is listed twice"),
        ("test/bath/rgb_1.png test/bath/depth_1.png test/bath/filled_1.png", "list of prs-eth/Marigold"),
    ],
)
def test_foreign_lines_are_named(tmp_path: Path, row: str, words: str) -> None:
    root = build(tmp_path / "nyuv2")
    (root / "nyu_test.txt").write_text(f"{line('attic/00007')}\n{row}\n")
    assert words in problems(root)
    assert "nyu_test.txt, line 2" in problems(root)


def test_lists_that_are_empty_or_differ(tmp_path: Path) -> None:
    root = build(tmp_path / "nyuv2")
    other = root / "nyudepthv2_test_files_with_gt.txt"
    other.write_text((root / "nyu_test.txt").read_text() + "\n")
    assert opened(root).report.layout == "BTS list nyu_test.txt"
    other.write_text(line("bath/00001"))
    assert "nyu_test.txt and nyudepthv2_test_files_with_gt.txt differ" in problems(root)
    other.unlink()
    (root / "nyu_test.txt").write_text(f"bath/rgb_00001.jpg None {FOCAL}\n")
    assert "no line with a depth map" in problems(root)


def test_files_lie_in_one_of_several_places(tmp_path: Path) -> None:
    names = ["bath/00001", "bath/00002"]
    fingerprints = set()
    for place in ("", "official_splits/train", "train", "sync"):
        root = tmp_path / f"a{len(fingerprints)}{place.replace('/', '_')}"
        for seed, name in enumerate(names):
            write_frame(root / place, name, seed)
        (root / "nyu_train.txt").write_text("\n".join(f"/{line(n)}" for n in names))
        dataset = opened(root, "train")
        assert dataset.report.label == "subset (2 of 24231), 160 x 120"
        fingerprints.add(dataset.fingerprint)
    assert len(fingerprints) == 1
    assert inspect(tmp_path, split="test")[0].verdict == "missing"


def test_test_pictures_must_not_be_trained_on(tmp_path: Path) -> None:
    """Whether both lists lie in one root or in two."""
    root = build(tmp_path / "one" / "nyuv2")
    build(root, ["cellar/00001"], split="train")
    opened(root)
    opened(root, "train")
    build(root, ["cellar/00001", "bath/00003"], split="train")
    for split in ("test", "train"):
        assert "1 pictures are in the" in problems(root, split)
        assert "bath/rgb_00003" in problems(root, split)
    build(tmp_path / "two" / "eval")
    build(tmp_path / "two" / "sync", ["bath/00001"], split="train")
    assert "bath/rgb_00001" in problems(tmp_path / "two")


def test_two_candidates_are_listed(tmp_path: Path) -> None:
    build(tmp_path / "a")
    build(tmp_path / "b")
    assert len(refused(tmp_path).problems) == 2


def test_missing_says_what_is_there(tmp_path: Path) -> None:
    write_frame(tmp_path / "nyu/official_splits/test", "bath/00001", 0)
    report, _ = inspect(tmp_path, split="test")
    assert report.verdict == "missing"
    assert "official_splits/test is there, but neither nyu_test.txt" in report.problems[0]
    (tmp_path / "nyu/filename_list_test.txt").write_text("test/b/rgb_1.png test/b/depth_1.png test/b/filled_1.png\n")
    assert "list of prs-eth/Marigold, another set" in problems(tmp_path)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    root = build(tmp_path / "nyuv2")
    depth = root / "official_splits/test/bath/sync_depth_00001.png"
    whole = np.asarray(Image.open(depth))
    save(depth, (whole // 39).astype(np.uint8))
    assert "bath/sync_depth_00001.png: depth is 8-bit" in problems(root)
    save(depth, whole[:60])
    assert "the depth map is 160 x 60, its picture 160 x 120" in problems(root)
    save(depth, whole)
    depth.write_bytes(depth.read_bytes()[:-500])
    assert "bath/sync_depth_00001.png: cannot be decoded" in problems(root)
    depth.unlink()
    assert "bath/sync_depth_00001.png: missing" in problems(root)
    write_frame(depth.parent.parent, "bath/00001", 0, size=(176, 120))
    assert "frames of 2 sizes; unlike the first: bath/rgb_00001 176 x 120" in problems(root)


def test_missing_files_are_counted(tmp_path: Path) -> None:
    root = build(tmp_path / "nyuv2")
    (root / "nyu_test.txt").write_text("\n".join(line(f"bath/{i:05d}") for i in range(1, 60)))
    report = refused(root)
    assert report.found["images"] == 59
    assert len(report.problems) == 21
    assert report.problems[-1] == "... and 37 more"


def rescale(root: Path, factor: float) -> None:
    for path in each_depth(root):
        save(path, np.rint(np.asarray(Image.open(path)) * factor).astype(np.uint16))


def test_wrong_scales_are_found(tmp_path: Path) -> None:
    for i, (factor, words) in enumerate({0.1: "depth scale?", 0.256: "depth scale?"}.items()):
        root = build(tmp_path / str(i) / "nyuv2")
        rescale(root, factor)
        assert words in opened(root).report.label
    root = build(tmp_path / "x" / "nyuv2")
    rescale(root, 10)
    assert "wrong depth scale: the median of the decoded maps is" in problems(root)
    rescale(root, 0)
    assert "3 of 3 decoded depth maps hold no depth at all" in problems(root)


def test_filled_and_coarse_depth_is_labelled(tmp_path: Path) -> None:
    root = build(tmp_path / "nyuv2")
    for i, path in enumerate(each_depth(root)):
        save(path, codes(view(160, 120, i).metres_HW, 1000))
    shutil.copytree(root, tmp_path / "coarse")
    pictures = sorted(root.rglob("rgb_*.jpg"))
    for i, path in enumerate(pictures):
        save(path, view(160, 120, i).rgb_HW3)
        shutil.copy(path, tmp_path / "coarse" / path.relative_to(root))
    assert opened(root).report.label == "subset (3 of 654), 160 x 120, filled"
    for path in each_depth(tmp_path / "coarse"):
        save(path, (np.asarray(Image.open(path)) // 39 * 39).astype(np.uint16))
    assert opened(tmp_path / "coarse").report.label == "subset (3 of 654), 160 x 120, filled, 8-bit levels"


def test_depth_files_called_filled_are_labelled(tmp_path: Path) -> None:
    root = build(tmp_path / "nyuv2")
    for path in each_depth(root):
        path.rename(path.with_name(path.name.replace("sync_depth", "filled")))
    listing = root / "nyu_test.txt"
    listing.write_text(listing.read_text().replace("sync_depth", "filled"))
    assert opened(root).report.label == "subset (3 of 654), 160 x 120, filled"


def test_mirrored_depth_is_refused(tmp_path: Path) -> None:
    root = build(tmp_path / "nyuv2", [f"bath/{i:05d}" for i in range(6)])
    opened(root)
    for path in each_depth(root):
        save(path, np.ascontiguousarray(np.asarray(Image.open(path))[:, ::-1]))
    assert "depth is mirrored against the pictures" in problems(root)


def framed(seed: int) -> np.ndarray:
    """640 x 480 with the black frame of the BTS test set."""
    pixels = np.zeros((480, 640, 3), np.uint8)
    pixels[7:474, 7:632] = np.maximum(view(625, 467, seed).rgb_HW3, 30)
    return pixels


def full_size(root: Path, pixels: np.ndarray, metres_HW: np.ndarray) -> Path:
    save(root / "a/rgb_00000.jpg", pixels)
    save(root / "a/sync_depth_00000.png", codes(metres_HW, 1000, holes=0.05))
    for i in range(1, FRAMES["test"]):
        link(root / "a/rgb_00000.jpg", root / f"a/rgb_{i:05d}.jpg")
        link(root / "a/sync_depth_00000.png", root / f"a/sync_depth_{i:05d}.png")
    (root / "nyu_test.txt").write_text("\n".join(line(f"a/{i:05d}") for i in range(FRAMES["test"])))
    return root


def test_the_full_set_is_ok_and_its_mirror_image_is_not(tmp_path: Path) -> None:
    metres_HW = np.zeros((480, 640))
    metres_HW[7:474, 7:632] = view(625, 467, 3, far=8.0).metres_HW
    report, _ = inspect(full_size(tmp_path / "a", framed(3), metres_HW), split="test")
    assert (report.verdict, report.label) == ("ok", "")
    flipped = full_size(tmp_path / "b", framed(3)[:, ::-1].copy(), metres_HW[:, ::-1].copy())
    assert "the pictures are mirrored: their frame is wider on the left" in problems(flipped)
    bright = full_size(tmp_path / "c", np.maximum(framed(3), 40), metres_HW)
    assert opened(bright).report.label == "no black frame"


def test_real_frames(real_data: Path) -> None:
    for split, n, full in (("test", 110, 654), ("train", 50, 24231)):
        dataset = open_dataset("nyuv2", real_data, split=split)
        assert isinstance(dataset, DepthSet)
        frame = "no black frame, " if split == "test" else ""
        assert dataset.report.label == f"subset ({n} of {full}), {frame}filled, 8-bit levels"
        assert {i.size for i in dataset.items.values()} == {(640, 480)}
    assert {i.group for i in dataset.items.values()} == {"unknown_scene"}
    item = open_dataset("nyuv2", real_data).items["kitchen/rgb_00000"]  # type: ignore[attr-defined]
    depth = read_depth_metres(item.depth, "millimetres")
    np.testing.assert_allclose(depth, np.asarray(Image.open(item.depth.path)) / 1000, rtol=1e-6)


def sixteen_bit(real_data: Path, root: Path, *, flip_rgb: bool, flip_depth: bool) -> Path:
    """The four real 16-bit frames with holes, in the BTS layout."""
    source = real_data / "nyuv2/raw16bit"
    frames = {f"sync/{i:05d}": (f"metric3d_rgb_{i:05d}.jpg", f"metric3d_sync_depth_{i:05d}.png") for i in (0, 50, 100)}
    frames["demo/01338"] = ("unidepth_rgb_1338.png", "unidepth_depth_1338.png")
    for name, (rgb, depth) in frames.items():
        scene, number = name.split("/")
        pixels, mm = np.asarray(Image.open(source / rgb)), np.asarray(Image.open(source / depth))
        save(root / scene / f"rgb_{number}.jpg", pixels[:, :: -1 if flip_rgb else 1].copy())
        save(root / scene / f"sync_depth_{number}.png", mm[:, :: -1 if flip_depth else 1].copy())
    (root / "nyu_test.txt").write_text("\n".join(line(n) for n in frames))
    return root


def test_real_16_bit_frames_as_they_are_and_mirrored(tmp_path: Path, real_data: Path) -> None:
    right = sixteen_bit(real_data, tmp_path / "a", flip_rgb=False, flip_depth=False)
    assert opened(right).report.label == "subset (4 of 654), no black frame"
    for flip_rgb in (False, True):
        half = sixteen_bit(real_data, tmp_path / f"b{flip_rgb}", flip_rgb=flip_rgb, flip_depth=not flip_rgb)
        assert "depth is mirrored against the pictures" in problems(half)
    both = sixteen_bit(real_data, tmp_path / "c", flip_rgb=True, flip_depth=True)
    (both / "nyu_test.txt").write_text(line("demo/01338"))
    assert "the pictures are mirrored" in problems(both)


def test_data_check_exits_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """D1: truncated and missing data. Filled depth runs, labelled (`harness.md` section 8)."""
    root = build(tmp_path / "nyuv2")
    command = ["data", "check", "nyuv2", "--data", str(tmp_path), "--cache", str(tmp_path / "cache")]
    assert invoke(command) == 0
    assert "3 of 654 images" in capsys.readouterr().out
    depth = each_depth(root)[0]
    depth.write_bytes(depth.read_bytes()[:-200])
    assert invoke(command) == 3
    assert "3 of 654 images" in capsys.readouterr().out
    depth.unlink()
    assert invoke(command) == 3
    assert f"{depth.name}: missing" in capsys.readouterr().out
    shutil.rmtree(root)
    assert invoke(command) == 3


def test_opening_a_broken_set_says_everything(tmp_path: Path) -> None:
    root = build(tmp_path / "nyuv2")
    each_depth(root)[1].unlink()
    with pytest.raises(DataError, match=r"sync_depth_00001\.png: missing") as error:
        open_dataset("nyuv2", root)
    assert error.value.exit_code == 3
