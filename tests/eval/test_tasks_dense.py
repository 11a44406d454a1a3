"""Correspondence tasks end to end through the runner, against naive fp64 loops on the same token maps.

NAVI's prepared geometry (crops, points) comes from `mtv.probes.navi_prepare`, which has tests of its own.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from run_helpers import Table, make_job, measure
from run_oracles import (
    IMAGENET_STATISTICS,
    SpairOracle,
    agree,
    cubic_grid,
    degrees,
    naive_errors,
    naive_matches,
    naive_navi_pairs,
    own_statistics,
    tokens,
)

from mtv.encoders.base import Encoder
from mtv.results import TaskResult


@pytest.mark.parametrize(("mode", "size", "preset"), [("probe3d", 64, "paper"), ("centered", 60, "centered")])
def test_spair_is_naive_keypoint_transfer(
    tiny_encoder: Encoder, world: Path, tmp_path: Path, mode: str, size: int, preset: str
) -> None:
    """Size 60 is no multiple of the patch: the padding enters the lookup and the prediction."""
    record, table = measure(tiny_encoder, make_job("spair", preset, size=size), world, tmp_path)
    oracle = SpairOracle(tiny_encoder, world, mode, size)
    expected = {
        f"{p['filename']}#{number}": error for p in oracle.pairs() for number, error in oracle.errors(p).items()
    }
    found = dict(zip(table["sample_id"].tolist(), table["error"] / table["scale"], strict=True))
    assert found == pytest.approx(expected, abs=1e-6)
    hit = {i: e < 0.1 for i, e in expected.items()}
    assert 0 < sum(hit.values()) < len(hit)
    by_class: dict[str, list[bool]] = {}
    by_pair: dict[str, list[bool]] = {}
    for i, h in hit.items():
        by_class.setdefault(i.partition(":")[2].partition("#")[0], []).append(h)
        by_pair.setdefault(i.partition("#")[0], []).append(h)
    agree(
        record,
        {
            "recall_all": 100 * np.mean([np.mean(h) for h in by_class.values()]),
            "pck_point@0.10": 100 * np.mean(list(hit.values())),
            "pck_image@0.10": 100 * np.mean([np.mean(h) for h in by_pair.values()]),
            "pck_class@0.10": 100 * np.mean([np.mean(h) for h in by_class.values()]),
        },
    )
    assert record.details["n_pairs"] == 36
    assert record.data["counts"] == {"images": 12, "pairs": 36, "classes": 3}


def test_spair_draws_each_job_from_the_whole_set(tiny_encoder: Encoder, world: Path, tmp_path: Path) -> None:
    """Section 3.2: per class and viewpoint (and per class alone) order by name, shuffle with seed 20, keep the first n.

    The rows of one job must not enter another job that did not draw them.
    """
    n = 2
    record, table = measure(tiny_encoder, make_job("spair", size=64, pairs_per_job=n), world, tmp_path)
    oracle = SpairOracle(tiny_encoder, world, "probe3d", 64)
    pairs = {p["filename"]: p for p in oracle.pairs()}
    drawn: dict[tuple[str, int | None], list[str]] = {}
    for category in ("bus", "cat", "dog"):
        for vp in (0, 1, 2, None):
            names = sorted(
                k for k, p in pairs.items() if p["category"] == category and vp in (None, p["viewpoint_variation"])
            )
            random.Random(20).shuffle(names)
            drawn[category, vp] = names[:n]
    expected: dict[str, float | None] = {}
    for vp, key in ((0, "recall_vp0"), (1, "recall_vp1"), (2, "recall_vp2"), (None, "recall_all")):
        per_class = []
        for category in ("bus", "cat", "dog"):
            hits = [e < 0.1 for name in drawn[category, vp] for e in oracle.errors(pairs[name]).values()]
            per_class += [np.mean(hits)] if hits else []
        expected[key] = 100 * float(np.mean(per_class))
    expected["avg_recall"] = sum(expected[f"recall_vp{v}"] or 0.0 for v in range(3)) / 3
    agree(record, expected)
    for column, viewpoints in (("in_all", (None,)), ("in_vp", (0, 1, 2))):
        union = {name for (_, vp), names in drawn.items() if vp in viewpoints for name in names}
        assert set(table["cluster_id"][table[column]].tolist()) == union, column
    # `bus` has viewpoint 0 only, so its two averages are over two classes.
    assert record.metrics["spair/recall_vp1"].n == sum(
        len(oracle.errors(pairs[name])) for c in ("cat", "dog") for name in drawn[c, 1]
    )


def check_geometric(
    record: TaskResult,
    table: Table,
    outcomes: dict[str, tuple[float, list[float], list[float]]],
    cm: Sequence[float],
    bins: Sequence[tuple[float, float]],
    at: float,
    keys: Sequence[str],
    zoom: float = 1.0,
) -> None:
    """Hits per pair and threshold, means over pairs, means per angle bin."""
    assert table["sample_id"].tolist() == list(outcomes)
    np.testing.assert_allclose(table["angle"], [angle for angle, _, _ in outcomes.values()], atol=2e-4)
    expected: dict[str, float | None] = {}
    for kind, thresholds, unit_name in ((1, cm, "cm"), (2, (5, 25, 50), "px")):
        for t in thresholds:
            limit = t / 100 if kind == 1 else t * zoom
            hits = [sum(e < limit for e in o[kind]) for o in outcomes.values()]
            assert table[f"hits_{t}{unit_name}"].tolist() == hits, (t, unit_name)
            expected[f"recall_{t}{unit_name}"] = 100 * float(
                np.mean([h / len(o[kind]) for h, o in zip(hits, outcomes.values(), strict=True)])
            )
    expected["avg_recall"] = sum(expected[f"recall_{t}cm"] or 0.0 for t in cm) / len(cm)
    filled = []
    for (lo, hi), key in zip(bins, keys, strict=True):
        inside = [np.mean([e < at for e in m]) for angle, m, _ in outcomes.values() if lo <= angle < hi]
        expected[key] = 100 * float(np.mean(inside)) if inside else None
        filled += [expected[key]] if inside else []
    expected["avg_recall_bins"] = float(np.mean(filled))  # type: ignore[arg-type]
    agree(record, expected)
    assert 0 < (expected[f"recall_{cm[-1]}cm"] or 0) < 100


@pytest.mark.parametrize("model", ["tiny_encoder", "vit_tiny"])
def test_sevenscenes_is_naive_matching(model: str, world: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    encoder: Encoder = request.getfixturevalue(model)
    record, table = measure(encoder, make_job("sevenscenes", matches=50), world, tmp_path)
    frames = {}
    scene = world / "7scenes" / "chess"
    k_33 = np.loadtxt(scene / "camera-intrinsics.txt")
    for path in sorted((scene / "seq-01").glob("*.color.png")):
        stem = path.name.removesuffix(".color.png")
        pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
        height, width = pixels.shape[1:]
        rows, columns = np.arange(2, height, 4), np.arange(2, width, 4)
        pad = [(-n % encoder.patch_size) // 2 for n in (height, width)]
        sides = [n + -n % encoder.patch_size for n in (height, width)]
        places = [2 * (c + 0.5 + b) / s - 1 for c, b, s in zip((rows, columns), pad, sides, strict=True)]
        grid = cubic_grid(tokens(encoder, pixels, own_statistics(encoder)), places)
        depth = np.array(Image.open(scene / "seq-01" / f"{stem}.depth.png")).astype(float)
        points, keep = [], []
        for n, (r, c) in enumerate((r, c) for r in rows for c in columns):
            z = depth[r, c] / 1000
            if 0 < depth[r, c] < 65535:
                keep.append(n)
                ray = [(c + 0.5 - k_33[0, 2]) / k_33[0, 0], (r + 0.5 - k_33[1, 2]) / k_33[1, 1], 1]
                points.append(np.float32(np.array(ray) * z))
        pose = np.linalg.inv(np.loadtxt(scene / "seq-01" / f"{stem}.pose.txt"))
        frames[stem] = grid[keep], np.array(points), pose
    outcomes = {}
    for name in table["sample_id"].tolist():
        a, b = (image.rpartition("/")[2] for image in name.split(" "))
        (f0, xyz0, pose0), (f1, xyz1, pose1) = frames[a], frames[b]
        pose01 = pose1 @ np.linalg.inv(pose0)
        focal = (k_33[0, 0], k_33[1, 1])
        outcomes[name] = degrees(pose01), *naive_errors(naive_matches(f0, f1, 50), xyz0, xyz1, pose01, focal)
    assert len(outcomes) == 6
    bins = ((0, 15), (15, 30), (30, 60), (60, math.inf))
    keys = [f"recall_5cm_{b}" for b in ("0_15", "15_30", "30_60", "over_60")]
    check_geometric(record, table, outcomes, (2, 5, 10), bins, 0.05, keys)


@pytest.mark.parametrize(
    ("mode", "size", "grid"),
    [("probe3d", 512, 128), ("centered", 512, 128), ("probe3d", 128, 64), ("centered", 192, 48), ("centered", 100, 50)],
)
def test_navi_is_naive_matching(
    tiny_encoder: Encoder, world: Path, tmp_path: Path, mode: Any, size: int, grid: int
) -> None:
    """Size 100 is no multiple of the patch: the padding enters the lookup."""
    from mtv.eval.datasets.navi import rotation_from_quaternion
    from mtv.probes.navi_prepare import downsample_for_cache, prepare_navi

    fields = {"matches": 40, "stride": 2} | ({} if size == 512 else {"size": size, "grid": grid})
    record, table = measure(
        tiny_encoder, make_job("navi", "paper" if mode == "probe3d" else mode, **fields), world, tmp_path
    )
    statistics = IMAGENET_STATISTICS if mode == "probe3d" else own_statistics(tiny_encoder)
    views: dict[str, Any] = {}
    for folder in sorted((world / "navi_v1.5").iterdir()):
        for r in json.loads((folder / "wild_set" / "annotations.json").read_text()):
            stem = r["filename"][:-4]
            rgb = np.array(Image.open(folder / "wild_set" / "images" / r["filename"]).convert("RGB"))
            codes = np.array(Image.open(folder / "wild_set" / "depth" / f"{stem}.png")).astype(float)
            depth = np.where(codes > 0, 655.350 / np.maximum(codes, 1), 0).astype(np.float32)
            if mode == "probe3d":
                rgb, depth = downsample_for_cache(rgb, depth, jpeg_roundtrip=True)
            focal = r["camera"]["focal_length"]
            item = prepare_navi(
                rgb, depth, focal_full=focal, full_size=tuple(r["image_size"]), mode=mode, size=size, grid=grid
            )
            map_DHW = tokens(tiny_encoder, item.image, statistics)
            if mode == "probe3d":
                up = F.interpolate(map_DHW[None], (grid, grid), mode="bicubic", align_corners=False)[0]
                cells = (up / up.norm(dim=0)).flatten(1).T.numpy()
            else:
                step, pad = size // grid, (-size % tiny_encoder.patch_size) // 2
                place = 2 * (np.arange(step // 2, size, step) + 0.5 + pad) / (size + 2 * pad) - 1
                cells = cubic_grid(map_DHW, [place, place])
            pose = np.eye(4)
            pose[:3, :3] = rotation_from_quaternion(r["camera"]["q"])
            pose[:3, 3] = np.array(r["camera"]["t"]) / 1000
            keep = item.valid.flatten().numpy()
            views[f"{folder.name}/wild_set/{stem}"] = (
                cells[keep],
                item.xyz.numpy().reshape(-1, 3)[keep],
                pose,
                item.focal,
            )
    outcomes = {}
    for a, b in naive_navi_pairs({k: v[2] for k, v in views.items()}, self_pairs=mode == "probe3d", stride=2):
        (f0, xyz0, pose0, _), (f1, xyz1, pose1, focal1) = views[a], views[b]
        pose01 = pose1 @ np.linalg.inv(pose0)
        outcomes[f"{a} {b}"] = degrees(pose01), *naive_errors(naive_matches(f0, f1, 40), xyz0, xyz1, pose01, focal1)
    assert len(outcomes) == 4
    bins = ((0, 30), (30, 60), (60, 90), (90, 120))
    keys = [f"recall_2cm_{lo}_{hi}" for lo, hi in bins]
    check_geometric(record, table, outcomes, (1, 2, 5), bins, 0.02, keys, zoom=size / 512)
