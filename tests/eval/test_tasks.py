"""Every task end to end through the runner, on tiny data in the true layouts, against naive fp64 loops.

The oracles share with the code only the encoder's forward pass (one picture at a time) and, for NAVI, the prepared
geometry, which has tests of its own.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from run_world import COCO_CAPTIONS, SPAIR_SIZES, Table, make_job, measure

from mtv.encoders import load
from mtv.encoders.base import Encoder
from mtv.results import TaskResult

GAP = 1e-6
"""Scores closer than this may rank differently in fp32; the worlds are chosen so that only exact ties are closer."""
IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def two_tower(clip: str) -> Encoder:
    return load(clip)


@pytest.fixture(scope="module")
def dense(tiny: str) -> Encoder:
    return load(f"{tiny}:build")


@pytest.fixture(scope="module")
def vit() -> Encoder:
    return load("timm:vit_tiny_patch16_224@random?size=64")


def values(record: TaskResult) -> dict[str, float | None]:
    """Metric name without the task prefix to value."""
    return {name.partition("/")[2]: m.value for name, m in record.metrics.items()}


def agree(record: TaskResult, expected: dict[str, float | None]) -> None:
    """Every expected metric has this value."""
    found = values(record)
    for name, value in expected.items():
        assert found[name] == (None if value is None else pytest.approx(value, abs=1e-9)), name


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x)


def pooled(encoder: Encoder, path: Path) -> np.ndarray:
    """The unit image embedding of one file, fp64."""
    pixels = encoder.transform()(Image.open(path).convert("RGB"))
    vector = encoder.features(encoder.normalize(pixels[None]), pooled=True).pooled
    assert vector is not None
    return unit(vector[0].double().numpy())


def embed(encoder: Encoder, text: str, kind: Any) -> np.ndarray:
    return unit(encoder.encode_text([text], kind=kind)[0].double().numpy())


def tokens(encoder: Encoder, pixels_3HW: torch.Tensor, statistics: tuple[Sequence[float], Sequence[float]]) -> Any:
    """The last layer's map D,H,W in fp64, as stored in fp16, of uint8 pixels padded with zeros to whole patches."""
    mean, std = (torch.tensor(s, dtype=torch.float32)[:, None, None] for s in statistics)
    x = (pixels_3HW.float() / 255 - mean) / std
    (h, w), p = x.shape[1:], encoder.patch_size
    x = F.pad(x, ((-w % p) // 2, -w % p - (-w % p) // 2, (-h % p) // 2, -h % p - (-h % p) // 2))
    out = encoder.features(x[None], layers=[-1], norm="final").tokens[encoder.depth - 1][0]
    return out.half().double().permute(2, 0, 1)


def own_statistics(encoder: Encoder) -> tuple[Sequence[float], Sequence[float]]:
    return encoder.info.image.mean, encoder.info.image.std


# ---------------------------------------------------------------------------------------------------- classification


def test_imagenet_is_the_naive_zero_shot_classifier(two_tower: Encoder, world: Path, tmp_path: Path) -> None:
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES, SIMPLE_IMAGENET_TEMPLATES

    record, table = measure(two_tower, make_job("imagenet", templates="openai7"), world, tmp_path)
    classifier = []
    for name in IMAGENET_CLASSNAMES[:5]:
        prompts = [embed(two_tower, template(name), "prompt") for template in SIMPLE_IMAGENET_TEMPLATES]
        classifier.append(unit(np.mean(prompts, axis=0)))
    expected: dict[str, tuple[int, int, int]] = {}
    for label, folder in enumerate(sorted((world / "imagenet" / "val").iterdir())):
        for path in folder.iterdir():
            vector = pooled(two_tower, path)
            scores = [float(np.dot(vector, c)) for c in classifier]
            assert min(abs(a - b) for i, a in enumerate(scores) for b in scores[:i]) > GAP
            rank = 1 + sum(s > scores[label] for s in scores)
            expected[path.stem] = label, int(np.argmax(scores)), rank
    rows = zip(table["label"], table["predicted"], table["rank"], strict=True)
    assert dict(zip(table["sample_id"], [tuple(map(int, r)) for r in rows], strict=True)) == expected
    hits = {label: [r == 1 for own, _, r in expected.values() if own == label] for label in range(5)}
    agree(
        record,
        {
            "top1": 100 * np.mean([r == 1 for _, _, r in expected.values()]),
            "top5": 100.0,
            "mean_class_acc": 100 * np.mean([np.mean(h) for h in hits.values()]),
        },
    )
    assert record.metrics["imagenet/top1"].chance == pytest.approx(20)
    assert record.details["n_candidates"] == 5
    assert record.data["label"] == "subset (16 of 50000)"


def test_imagenet_with_all_thousand_candidates_and_with_own_names(
    two_tower: Encoder, world: Path, tmp_path: Path
) -> None:
    record, table = measure(two_tower, make_job("imagenet", templates="one", classes="all"), world, tmp_path)
    assert record.details["n_candidates"] == 1000
    assert set(table["label"]) == {0, 1, 2, 3, 4}
    names = tmp_path / "names.txt"
    names.write_text("\n".join(["fish", "gold", "white", "tiger", "hammer"]) + "\n")
    named, _ = measure(two_tower, make_job("imagenet", templates="one", classnames=str(names)), world, tmp_path)
    assert named.details["n_candidates"] == 5
    assert named.protocol["params"]["classnames"] == "names.txt"


@pytest.mark.parametrize(("data", "k"), [("imagenet", 3), ("spair", 20)])
def test_knn_is_the_naive_vote(vit: Encoder, world: Path, tmp_path: Path, data: str, k: int) -> None:
    record, table = measure(vit, make_job("knn", data=data, k=k), world, tmp_path)
    root = world / "imagenet" / "val" if data == "imagenet" else world / "SPair-71k" / "JPEGImages"
    found = [(label, p) for label, d in enumerate(sorted(root.iterdir())) for p in sorted(d.iterdir())]
    counts = [sum(other == label for other, _ in found) for label, _ in found]
    kept = [(label, p, pooled(vit, p)) for (label, p), n in zip(found, counts, strict=True) if n > 1]
    outcome = {}
    for i, (label, path, vector) in enumerate(kept):
        others = sorted(((-float(vector @ v), o) for j, (o, _, v) in enumerate(kept) if j != i), key=lambda s: s[0])
        votes: dict[int, float] = {}
        for score, other in others[: min(k, len(others))]:
            votes[other] = votes.get(other, 0.0) + math.exp(-score / 0.07)
        name = path.stem if data == "imagenet" else f"{path.parent.name}/{path.stem}"
        outcome[name] = label, max(sorted(votes), key=lambda c: votes[c])
    columns = zip(table["label"].tolist(), table["predicted"].tolist(), strict=True)
    assert dict(zip(table["sample_id"].tolist(), columns, strict=True)) == outcome
    right = {label: [p == own for own, p in outcome.values() if own == label] for label, _ in outcome.values()}
    agree(
        record,
        {
            "top1": 100 * np.mean([p == own for own, p in outcome.values()]),
            "mean_class_acc": 100 * np.mean([np.mean(r) for r in right.values()]),
        },
    )
    assert record.details["n_left_out"] == len(found) - len(kept)
    most = max(len(r) for r in right.values())
    assert record.metrics["knn/top1"].chance == pytest.approx(100 * most / len(outcome))


# ---------------------------------------------------------------------------------------------------------- retrieval


def naive_ranks(images: list[np.ndarray], texts: list[np.ndarray], owner: list[int]) -> tuple[list[int], list[int]]:
    """Ranks of the caption queries and of the image queries (section 6.3), by loops."""
    score = [[float(np.dot(v, t)) for t in texts] for v in images]
    t2i = []
    for c, own in enumerate(owner):
        g = score[own][c]
        better = [j for j in range(len(images)) if score[j][c] > g or (score[j][c] == g and j < own)]
        assert all(abs(score[j][c] - g) > GAP or score[j][c] == g for j in range(len(images)))
        t2i.append(1 + len(better))
    i2t = []
    for i in range(len(images)):
        own_captions = [c for c in range(len(texts)) if owner[c] == i]
        first = max(own_captions, key=lambda c: (score[i][c], -c))
        g, foreign = score[i][first], [c for c in range(len(texts)) if owner[c] != i]
        assert all(abs(score[i][c] - g) > GAP or score[i][c] == g for c in foreign)
        i2t.append(1 + sum(score[i][c] > g or (score[i][c] == g and c < first) for c in foreign))
    return t2i, i2t


def caption_sets(world: Path, task: str) -> list[tuple[Path, list[str]]]:
    """Pictures with their captions in the order of the task."""
    captions = list(COCO_CAPTIONS.items())
    if task == "coco":
        folder = world / "coco" / "val2014"
        return [(folder / f"COCO_val2014_{i:012d}.jpg", texts) for i, texts in captions]
    folder, first = ("flickr30k/flickr30k-images", 4) if task == "flickr30k" else ("flickr8k/Images", 5)
    paths = sorted((world / folder).iterdir())
    return [(p, texts[:5]) for p, (_, texts) in zip(paths, captions[:first], strict=True)]


@pytest.mark.parametrize("task", ["coco", "flickr30k", "flickr8k"])
def test_retrieval_is_the_naive_ranking(two_tower: Encoder, world: Path, tmp_path: Path, task: str) -> None:
    record, table = measure(two_tower, make_job(task), world, tmp_path)
    sets = caption_sets(world, task)
    images = [pooled(two_tower, path) for path, _ in sets]
    texts = [embed(two_tower, c, "caption") for _, captions in sets for c in captions]
    owner = [i for i, (_, captions) in enumerate(sets) for _ in captions]
    ranks = dict(zip(("t2i", "i2t"), naive_ranks(images, texts, owner), strict=True))
    expected: dict[str, float | None] = {}
    for part, found in ranks.items():
        assert table["rank"][table["part"] == part].tolist() == found
        expected |= {f"{part}_r{k}": 100 * float(np.mean([r <= k for r in found])) for k in (1, 5, 10)}
        expected[f"{part}_medr"] = float(np.median(found))
    expected["rsum"] = sum(v for k, v in expected.items() if "_r" in k and v is not None)
    agree(record, expected)
    # Captions of one picture share its cluster, whatever the direction.
    assert len(set(table["cluster_id"])) == len(sets) == record.metrics[f"{task}/t2i_r1"].n_clusters
    assert record.metrics[f"{task}/t2i_r1"].n == len(texts)


def test_repeated_captions_are_embedded_once_and_tie(two_tower: Encoder, world: Path, tmp_path: Path) -> None:
    """R3, R7: `a dog  on a beach.` and `A dog on a beach.\\n` are one string for CLIP; `A dog.` is on two pictures."""
    record, table = measure(two_tower, make_job("coco"), world, tmp_path)
    cleaned = {" ".join(c.lower().split()) for captions in COCO_CAPTIONS.values() for c in captions}
    assert record.details["unique_captions"] == len(cleaned) < sum(map(len, COCO_CAPTIONS.values()))
    score = dict(zip(table["sample_id"].tolist(), table["score"].tolist(), strict=True))
    rows = [i for i, p in zip(table["sample_id"].tolist(), table["part"], strict=True) if p == "t2i"]
    assert score[rows[0]] == score[rows[1]]
    same = make_job("coco", positives="same_text")
    assert same.protocol.hash != record.protocol["hash"]
    accepted, _ = measure(two_tower, same, world, tmp_path)
    assert (values(accepted)["t2i_r1"] or 0) >= (values(record)["t2i_r1"] or 0)


# ------------------------------------------------------------------------------------------------- semantic transfer


class Spair:
    """The oracle: annotations read again, one keypoint at a time."""

    def __init__(self, encoder: Encoder, root: Path, mode: str, size: int) -> None:
        self.encoder, self.root, self.mode, self.size = encoder, root / "SPair-71k", mode, size
        self.maps: dict[str, Any] = {}

    def pairs(self) -> list[dict[str, Any]]:
        files = sorted((self.root / "PairAnnotation" / "test").iterdir())
        return [json.loads(p.read_text()) for p in files]

    def map_of(self, category: str, name: str) -> Any:
        key = f"{category}/{name}"
        if key not in self.maps:
            image = Image.open(self.root / "JPEGImages" / key).convert("RGB")
            square = Image.new("RGB", (max(image.size),) * 2, "white")
            square.paste(image)
            pixels = np.array(square.resize((self.size, self.size), Image.Resampling.BICUBIC))
            chosen = IMAGENET_STATISTICS if self.mode == "probe3d" else own_statistics(self.encoder)
            found = tokens(self.encoder, torch.from_numpy(pixels).permute(2, 0, 1), chosen)
            self.maps[key] = found / found.norm(dim=0)
        return self.maps[key]

    def annotation(self, category: str, name: str) -> dict[str, Any]:
        return json.loads((self.root / "ImageAnnotation" / category / name).with_suffix(".json").read_text())

    def errors(self, pair: dict[str, Any]) -> dict[int, float]:
        """Keypoint number to error over scale."""
        category = pair["category"]
        sides = [(self.annotation(category, pair[f"{s}_imname"]), pair[f"{s}_imname"]) for s in ("src", "trg")]
        (source, source_name), (target, target_name) = sides
        source_map, target_map = self.map_of(category, source_name), self.map_of(category, target_name)
        left, top, right, bottom = target["bndbox"]
        longest = max(target["image_width"], target["image_height"])
        out = {}
        for number, point in source["kps"].items():
            truth = target["kps"].get(number)
            if point is None or truth is None:
                continue
            scaled = self.scaled(point, max(source["image_width"], source["image_height"]))
            descriptor = self.at(source_map, scaled)
            best, cell = -2.0, (0, 0)
            for row in range(target_map.shape[1]):
                for column in range(target_map.shape[2]):
                    s = float(descriptor @ target_map[:, row, column])
                    if s > best:
                        best, cell = s, (column, row)
            out[int(number)] = self.error(cell, truth, longest, target_map.shape[1]) / max(right - left, bottom - top)
        return out

    def scaled(self, point: Sequence[float], longest: int) -> list[float]:
        if self.mode == "probe3d":
            return [float(int(np.float32(v) * np.float32(self.size) / np.float32(longest))) for v in point]
        return [v * self.size / longest + self.pad for v in point]

    @property
    def pad(self) -> int:
        return (-self.size % self.encoder.patch_size) // 2

    def at(self, map_DGG: Any, point: list[float]) -> Any:
        side = map_DGG.shape[1] * self.encoder.patch_size
        corners = self.mode == "probe3d"
        place = [2 * v / (self.size if corners else side) - 1 for v in point]
        grid = torch.tensor(place, dtype=torch.float64)[None, None, None]
        return F.grid_sample(map_DGG[None], grid, padding_mode="border", align_corners=corners)[0, :, 0, 0]

    def error(self, cell: tuple[int, int], truth: Sequence[float], longest: int, g: int) -> float:
        """In pixels of the target picture."""
        if self.mode == "probe3d":
            ends = [c / g - s / self.size for c, s in zip(cell, self.scaled(truth, longest), strict=True)]
            return math.hypot(*ends) * longest
        predicted = [((c + 0.5) * self.encoder.patch_size - self.pad) * longest / self.size for c in cell]
        return math.hypot(predicted[0] - truth[0], predicted[1] - truth[1])


@pytest.mark.parametrize(("mode", "size", "preset"), [("probe3d", 64, "paper"), ("centered", 60, "centered")])
def test_spair_is_naive_keypoint_transfer(
    dense: Encoder, world: Path, tmp_path: Path, mode: str, size: int, preset: str
) -> None:
    """Size 60 is no multiple of the patch: the padding enters the lookup and the prediction."""
    record, table = measure(dense, make_job("spair", preset, size=size), world, tmp_path)
    oracle = Spair(dense, world, mode, size)
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


def test_spair_draws_each_job_from_the_whole_set(dense: Encoder, world: Path, tmp_path: Path) -> None:
    """Section 3.2: per class and viewpoint (and per class alone) order by name, shuffle with seed 20, keep the first n.

    The rows of one job must not enter another job that did not draw them.
    """
    n = 2
    record, table = measure(dense, make_job("spair", size=64, pairs_per_job=n), world, tmp_path)
    oracle = Spair(dense, world, "probe3d", 64)
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


# ------------------------------------------------------------------------------------------------ geometric matching


def naive_matches(first: np.ndarray, second: np.ndarray, k: int) -> list[tuple[int, int]]:
    """Rows of `first` by uniqueness 1 - d1 / d2, the best k, with their nearest rows of `second`."""
    found = []
    for i, row in enumerate(first):
        cosine = second @ row
        j = int(np.argmax(cosine))
        d1, d2 = (max(1 - c, 1e-9) for c in (cosine[j], np.delete(cosine, j).max()))
        found.append((1 - d1 / d2, i, j))
    found.sort(key=lambda m: (-m[0], m[1]))
    assert len(found) <= k or found[k - 1][0] - found[k][0] > GAP
    return [(i, j) for _, i, j in found[:k]]


def naive_errors(
    pairs: list[tuple[int, int]], xyz0: np.ndarray, xyz1: np.ndarray, pose01: np.ndarray, focal: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Metres and pixels of each match."""
    metres, pixels = [], []
    for i, j in pairs:
        moved, there = pose01[:3, :3] @ xyz0[i].astype(float) + pose01[:3, 3], xyz1[j].astype(float)
        metres.append(float(np.linalg.norm(moved - there)))
        ends = [(p[:2] / max(p[2], 1e-9)) * focal for p in (moved, there)]
        pixels.append(float(np.linalg.norm(ends[0] - ends[1])))
    return metres, pixels


def cubic_grid(map_DHW: Any, places: Sequence[np.ndarray]) -> np.ndarray:
    """Bicubic lookup at (row, column) places in [-1, 1] through torch's own kernel, N,D of unit length."""
    rows, columns = (torch.from_numpy(np.asarray(p, dtype=np.float64)) for p in places)
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1)[None]
    out = F.grid_sample(map_DHW[None], grid, mode="bicubic", padding_mode="border", align_corners=False)[0]
    flat = out.flatten(1).T.numpy()
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def degrees(pose: np.ndarray) -> float:
    return math.degrees(math.acos(max(-1.0, min(1.0, (np.trace(pose[:3, :3]) - 1) / 2))))


def check_geometric(
    record: TaskResult,
    table: Table,
    outcomes: dict[str, tuple[float, list[float], list[float]]],
    cm: Sequence[float],
    bins: Sequence[tuple[float, float]],
    at: float,
    keys: Sequence[str],
) -> None:
    """Hits per pair and threshold, means over pairs, means per angle bin."""
    assert table["sample_id"].tolist() == list(outcomes)
    np.testing.assert_allclose(table["angle"], [angle for angle, _, _ in outcomes.values()], atol=2e-4)
    expected: dict[str, float | None] = {}
    for kind, thresholds, unit_name in ((1, cm, "cm"), (2, (5, 25, 50), "px")):
        for t in thresholds:
            limit = t / 100 if kind == 1 else t
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


@pytest.mark.parametrize("model", ["dense", "vit"])
def test_sevenscenes_is_naive_matching(
    model: str, world: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
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
        frames[f"seq-01/{stem}"] = grid[keep], np.array(points), pose
    outcomes = {}
    for name in table["sample_id"].tolist():
        (f0, xyz0, pose0), (f1, xyz1, pose1) = (frames[f"chess/{x}"] if f"chess/{x}" in frames else frames[x] for x in name.replace("chess/", "").split(" "))
        pose01 = pose1 @ np.linalg.inv(pose0)
        focal = (k_33[0, 0], k_33[1, 1])
        outcomes[name] = degrees(pose01), *naive_errors(naive_matches(f0, f1, 50), xyz0, xyz1, pose01, focal)
    assert len(outcomes) == 6
    bins = ((0, 15), (15, 30), (30, 60), (60, math.inf))
    keys = [f"recall_5cm_{b}" for b in ("0_15", "15_30", "30_60", "over_60")]
    check_geometric(record, table, outcomes, (2, 5, 10), bins, 0.05, keys)


@pytest.mark.parametrize("mode", ["probe3d", "centered"])
def test_navi_is_naive_matching(dense: Encoder, world: Path, tmp_path: Path, mode: Any) -> None:
    from mtv.eval.datasets.navi import rotation_from_quaternion
    from mtv.probes.navi_prepare import downsample_for_cache, prepare_navi

    fields = {"matches": 40, "stride": 2}
    record, table = measure(dense, make_job("navi", "paper" if mode == "probe3d" else mode, **fields), world, tmp_path)
    statistics = IMAGENET_STATISTICS if mode == "probe3d" else own_statistics(dense)
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
            item = prepare_navi(rgb, depth, focal_full=focal, full_size=tuple(r["image_size"]), mode=mode)
            map_DHW = tokens(dense, item.image, statistics)
            if mode == "probe3d":
                up = F.interpolate(map_DHW[None], (128, 128), mode="bicubic", align_corners=False)[0]
                grid = (up / up.norm(dim=0)).flatten(1).T.numpy()
            else:
                place = 2 * (np.arange(2, 512, 4) + 0.5) / 512 - 1
                grid = cubic_grid(map_DHW, [place, place])
            pose = np.eye(4)
            pose[:3, :3] = rotation_from_quaternion(r["camera"]["q"])
            pose[:3, 3] = np.array(r["camera"]["t"]) / 1000
            keep = item.valid.flatten().numpy()
            views[f"{folder.name}/wild_set/{stem}"] = grid[keep], item.xyz.numpy().reshape(-1, 3)[keep], pose, item.focal
    outcomes = {}
    for a, b in naive_navi_pairs({k: v[2] for k, v in views.items()}, self_pairs=mode == "probe3d", stride=2):
        (f0, xyz0, pose0, _), (f1, xyz1, pose1, focal1) = views[a], views[b]
        pose01 = pose1 @ np.linalg.inv(pose0)
        outcomes[f"{a} {b}"] = degrees(pose01), *naive_errors(naive_matches(f0, f1, 40), xyz0, xyz1, pose01, focal1)
    assert len(outcomes) == 4
    bins = ((0, 30), (30, 60), (60, 90), (90, 120))
    keys = [f"recall_2cm_{lo}_{hi}" for lo, hi in bins]
    check_geometric(record, table, outcomes, (1, 2, 5), bins, 0.02, keys)


def naive_navi_pairs(poses: dict[str, np.ndarray], *, self_pairs: bool, stride: int) -> list[tuple[str, str]]:
    """Section 2.3: one partner per image and object, seed 8, 0 < angle <= 120 in float32."""
    generator = torch.Generator().manual_seed(8)
    drawn = []
    for image, pose in poses.items():
        members = [k for k in poses if k.split("/")[0] == image.split("/")[0]]
        weights = []
        for other in members:
            r = torch.from_numpy(pose[:3, :3]).float() @ torch.from_numpy(poses[other][:3, :3]).float().T
            angle = torch.rad2deg(torch.acos(((r.trace() - 1) / 2).clamp(-1, 1)))
            weights.append(float(0 < angle <= 120 and (self_pairs or other != image)))
        j = int(torch.multinomial(torch.tensor(weights), 1, generator=generator))
        drawn.append((image, members[j]))
    return drawn[::stride]


# -------------------------------------------------------------------------------------------------------------- limits


def test_limits_are_spread_and_do_not_depend_on_order(dense: Encoder, world: Path, tmp_path: Path) -> None:
    """Five of sixteen pictures are one of each class; a limited caption set keeps all captions of its pictures."""
    record, table = measure(dense, make_job("imagenet", templates="one", limit=5), world, tmp_path)
    assert sorted(table["label"].tolist()) == [0, 1, 2, 3, 4]
    assert record.status == "partial"
    assert record.details["n_candidates"] == 5
    record, table = measure(dense, make_job("coco", limit=2), world, tmp_path)
    images = set(table["cluster_id"].tolist())
    assert len(images) == 2
    for image in images:
        own = (table["cluster_id"] == image) & (table["part"] == "t2i")
        assert own.sum() == len(COCO_CAPTIONS[int(image)])
    record, table = measure(dense, make_job("spair", size=64, limit=3), world, tmp_path)
    assert sorted({c.partition(":")[2] for c in table["cluster_id"].tolist()}) == ["bus", "cat", "dog"]
    assert record.data["counts"]["pairs"] == 3
    record, table = measure(dense, make_job("sevenscenes", matches=20, limit=2), world, tmp_path)
    assert len(table["sample_id"]) == 2


def test_sizes_of_the_world_are_what_the_oracles_assume(world: Path) -> None:
    sizes = {Image.open(p).size for p in (world / "SPair-71k" / "JPEGImages").rglob("*.jpg")}
    assert sizes == set(SPAIR_SIZES)


Oracle = Callable[..., Any]
