"""Tiny SPair-71k, NAVI and 7-Scenes copies in their original layouts: pictures of surfaces whose colour says where.

Views of one surface differ by shifts of whole patches or quarter turns, so the right match is known exactly; planted
errors are a pose that is off by some millimetres, and a picture whose halves have swapped colours.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mtv.eval.selftest.pictures import pixel_centres, save, save_codes, surface_picture

SPAIR_SIZE = (400, 300)
"""Width, height; the square that SPair pads to is 400, which 800 doubles: a patch of 16 is 8 pixels here."""
SPAIR_SHIFT = (5, 3)
"""Patches by which the surface moves between the pictures of a category."""
SPAIR_BOX = {"cat": 56.0, "dog": 60.0, "bus": 120.0}
"""Larger side of the object box: 0.14, 0.15 and 0.3 of the square (test S3)."""
SPAIR_CELLS = {"cat": ((14, 12), (20, 15)), "dog": ((12, 14), (18, 18), (22, 20)), "bus": ((11, 10), (13, 20))}
"""Keypoints of the first picture: (column, row) of the patch in whose centre they lie."""
SPAIR_VIEWPOINTS = {"cat": (0,), "dog": (0, 1), "bus": (2,)}
"""Viewpoint variation of each pair of a category."""


def write_spair(root: Path) -> None:
    """`SPair-71k/{JPEGImages, ImageAnnotation, PairAnnotation/test, Layout/large}` with three categories.

    `cat` and `dog` are right up to half a patch; the second picture of `bus` has swapped halves.
    """
    base, stems = root / "SPair-71k", list[str]()
    for category, cells in SPAIR_CELLS.items():
        shift = (0, 0) if category == "bus" else SPAIR_SHIFT
        points = [((c + 0.5) * 8, (r + 0.5) * 8) for c, r in cells]
        moved = [(x + 8 * shift[0], y + 8 * shift[1]) for x, y in points]
        # Point numbers count in both pictures although one of them lacks point 1.
        _spair_picture(base, category, "2008_000001", (0, 0), [points[0], (50.0, 60.0), *points[1:]], swap=False)
        _spair_picture(base, category, "2008_000002", shift, [moved[0], None, *moved[1:]], swap=category == "bus")
        for viewpoint in SPAIR_VIEWPOINTS[category]:
            stems.append(_spair_pair(base, category, len(stems) + 1, viewpoint))
    listing = base / "Layout" / "large" / "test.txt"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text("\n".join(stems) + "\n", encoding="utf-8")


def _spair_picture(
    base: Path,
    category: str,
    stem: str,
    shift: tuple[int, int],
    points: Sequence[tuple[float, float] | None],
    *,
    swap: bool,
) -> None:
    width, height = SPAIR_SIZE
    x_HW, y_HW = pixel_centres(width, height)
    u_HW, v_HW = (x_HW - 8 * shift[0]) / width, (y_HW - 8 * shift[1]) / width
    u_HW = swap_halves(u_HW) if swap else u_HW
    image = surface_picture((u_HW + 0.1) / 1.2, (v_HW + 0.1) / 1.2)
    save(image, base / "JPEGImages" / category / f"{stem}.jpg")
    side = SPAIR_BOX[category]
    annotation = {
        "filename": f"{stem}.jpg",
        "image_width": width,
        "image_height": height,
        "bndbox": [100.0, 80.0, 100.0 + side, 80.0 + side / 2],
        "kps": {str(i): p and list(p) for i, p in enumerate(points)},
    }
    _write_json(base / "ImageAnnotation" / category / f"{stem}.json", annotation)


def _spair_pair(base: Path, category: str, number: int, viewpoint: int) -> str:
    stem = f"{number:06d}-2008_000001-2008_000002:{category}"
    size = [*SPAIR_SIZE, 3]
    annotation = {
        "filename": stem,
        "category": category,
        "src_imname": "2008_000001.jpg",
        "trg_imname": "2008_000002.jpg",
        "src_imsize": size,
        "trg_imsize": size,
        "viewpoint_variation": viewpoint,
    }
    # A colon in a file name is not allowed everywhere, and the reader accepts the other spelling.
    _write_json(base / "PairAnnotation" / "test" / f"{stem.replace(':', '_')}.json", annotation)
    return stem


@dataclass(frozen=True, kw_only=True)
class NaviObject:
    """One object with two views, the second turned by 90 degrees about the optical axis."""

    name: str
    """Folder."""
    shift_mm: float = 0.0
    """Error planted into the second pose, along the camera's x axis."""
    swapped: bool = False
    """Whether the colours of the second view have swapped halves."""


NAVI_OBJECTS = (
    NaviObject(name="exact"),
    NaviObject(name="shifted", shift_mm=15.0),
    NaviObject(name="wrong", swapped=True),
)
NAVI_FOCAL = 800.0
"""Pixels; at about 1 m one pixel of the final crop is one millimetre, as in test N8."""


def write_navi(root: Path) -> None:
    """`navi_v1.5/<object>/{wild_set/{annotations.json, images, depth}, multiview-00-planted}`.

    The object is two blobs, 400 x 64 pixels together, with a gap of 80 between them, on a slanted plane about 1 m away.
    """
    x_HW, y_HW = pixel_centres(640, 512)
    u_HW, v_HW = (x_HW - 96) / 448, (y_HW - 200) / 112
    blobs_HW = (y_HW > 224) & (y_HW < 288) & (x_HW > 120) & (x_HW < 520) & ~((x_HW > 280) & (x_HW < 360))
    codes_HW = np.where(blobs_HW, 655 + np.rint(60 * (x_HW - 320) / 200), 0)
    # Quaternions of any length are allowed; these give rotations without rounding, hence no pair of a view with itself.
    first, second = (1.0, 1.0, 0.0, 0.0), (1.0, 1.0, -1.0, -1.0)
    for item in NAVI_OBJECTS:
        wild = root / "navi_v1.5" / item.name / "wild_set"
        (wild.parent / "multiview-00-planted").mkdir(parents=True, exist_ok=True)
        save(surface_picture(u_HW, v_HW), wild / "images" / "000.jpg")
        save_codes(codes_HW, wild / "depth" / "000.png")
        turned = surface_picture(swap_halves(u_HW) if item.swapped else u_HW, v_HW).transpose(Image.Transpose.ROTATE_90)
        save(turned, wild / "images" / "001.jpg")
        save_codes(np.rot90(codes_HW), wild / "depth" / "001.png")
        records = [
            _navi_record(item.name, "000.jpg", (512, 640), first, (0.0, 0.0, 0.0)),
            _navi_record(item.name, "001.jpg", (640, 512), second, (item.shift_mm, 0.0, 0.0)),
        ]
        _write_json(wild / "annotations.json", records)


def _navi_record(
    name: str, filename: str, size: tuple[int, int], q: Sequence[float], t: Sequence[float]
) -> dict[str, object]:
    return {
        "object_id": name,
        "scene_name": "wild_set",
        "filename": filename,
        "filename_original": filename,
        "image_size": list(size),
        "split": "val",
        "occluded": False,
        "camera": {"q": list(q), "t": list(t), "focal_length": NAVI_FOCAL, "camera_model": "planted"},
    }


SCENE_SIZE = (160, 112)
"""Width, height of a frame."""
SCENE_FOCAL = 320.0
"""Pixels; the wall is 2 m away, so a patch of 16 is 10 cm."""


def write_sevenscenes(root: Path, *, inverted: bool = False) -> None:
    """`7scenes/chess/{camera-intrinsics.txt, seq-0k/frame-00000n.{color.png, depth.png, pose.txt}}`, poses
    camera-to-world.

    Four sequences of two frames, hence four pairs: a step of one patch to the right, a half turn, swapped halves, and a
    pose that is off by 4 cm.

    Args:
        root: data root.
        inverted: write world-to-camera poses, which the layout does not allow and nobody can see.
    """
    chess = root / "7scenes" / "chess"
    chess.mkdir(parents=True, exist_ok=True)
    k_33 = np.array([[SCENE_FOCAL, 0, SCENE_SIZE[0] / 2], [0, SCENE_FOCAL, SCENE_SIZE[1] / 2], [0, 0, 1]])
    np.savetxt(chess / "camera-intrinsics.txt", k_33)
    still = np.eye(4)
    step, turn, off = still.copy(), np.diag([-1.0, -1.0, 1.0, 1.0]), still.copy()
    step[0, 3], off[1, 3] = 0.1, 0.04
    _scene_frame(chess / "seq-01", 0, still)
    _scene_frame(chess / "seq-01", 1, step, shift=16)
    _scene_frame(chess / "seq-02", 0, still)
    _scene_frame(chess / "seq-02", 1, turn, turned=True)
    _scene_frame(chess / "seq-03", 0, still, gap=True)
    _scene_frame(chess / "seq-03", 1, still, gap=True, swap=True)
    _scene_frame(chess / "seq-04", 0, still)
    _scene_frame(chess / "seq-04", 1, off)
    if inverted:
        for path in chess.glob("seq-*/*.pose.txt"):
            np.savetxt(path, np.linalg.inv(np.loadtxt(path)))


def _scene_frame(
    folder: Path,
    number: int,
    pose_44: np.ndarray,
    *,
    shift: int = 0,
    turned: bool = False,
    gap: bool = False,
    swap: bool = False,
) -> None:
    width, height = SCENE_SIZE
    x_HW, y_HW = pixel_centres(width, height)
    u_HW, v_HW = (x_HW + shift) / width, y_HW / height
    if turned:
        u_HW, v_HW = 1 - u_HW, 1 - v_HW
    u_HW = swap_halves(u_HW) if swap else u_HW
    stem = folder / f"frame-{number:06d}"
    save(surface_picture(u_HW / 1.2, v_HW), Path(f"{stem}.color.png"))
    depth_HW = np.full((height, width), 2000)
    if gap:
        depth_HW[:, 48:112] = 0
    save_codes(depth_HW, Path(f"{stem}.depth.png"))
    # The world is another frame than the first camera: an inverted or swapped pose then shows.
    np.savetxt(f"{stem}.pose.txt", _WORLD_44 @ pose_44)


_WORLD_44 = np.array([[0.0, 0.0, 1.0, 0.5], [1.0, 0.0, 0.0, -1.0], [0.0, 1.0, 0.0, 2.0], [0.0, 0.0, 0.0, 1.0]])


def swap_halves(u_HW: np.ndarray) -> np.ndarray:
    """u in [0, 1) with its halves exchanged: every place then claims to be half a picture away."""
    return (u_HW + 0.5) % 1.0


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
