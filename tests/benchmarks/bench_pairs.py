"""One pass per unique image against one pass per pair and side: SPair layout, 168 pairs of 24 images (bound 14).

    python tests/benchmarks/bench_pairs.py

Both versions run the same encoder and the same matching and must give the same hits; the naive one reads, prepares and
encodes both pictures of every pair. Run it on an idle machine.
"""

from __future__ import annotations

import itertools
import json
import logging
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mtv.encoders import load
from mtv.encoders.base import Encoder
from mtv.encoders.preprocess import decode_rgb
from mtv.eval.features.options import ExtractOptions
from mtv.eval.jobs import Job
from mtv.eval.preparations import IMAGENET_MEAN, IMAGENET_STD
from mtv.eval.protocols import protocol_for
from mtv.eval.runner import Runner, RunOptions
from mtv.probes.resample import SquareGrid, white_square
from mtv.probes.semantic import KeypointImage, match_keypoints, unit_map

SIZE = 384
N_IMAGES, N_PAIRS = 24, 168


def main() -> None:
    logging.basicConfig(level=logging.ERROR)
    encoder = load("timm:vit_small_patch16_224@random?mean=0.5,0.5,0.5&std=0.5,0.5,0.5")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        pairs = write_world(root / "SPair-71k")
        job = Job(
            protocol=protocol_for("spair", "paper", {"size": SIZE, "pairs": "all", "storage": "fp32"}), preset="paper"
        )
        extract = ExtractOptions(cache_dir=root / "cache", batch_size=2)
        runner = Runner(root, None, RunOptions(extract=extract, quiet=True))
        start = time.perf_counter()
        runner.open([job])
        runner.run_model(encoder, [job])
        ours = time.perf_counter() - start
        assert not runner.failures, runner.failures
        details = runner.results[0].details
        start = time.perf_counter()
        errors = naive(encoder, root / "SPair-71k", pairs)
        slow = time.perf_counter() - start
    hits = float(np.mean([e < 0.1 for e in errors])) * 100
    ours_hits = runner.results[0].metrics["spair/pck_point@0.10"].value
    print(f"{details['n_pairs']} pairs of {N_IMAGES} images at {SIZE} px")
    print(f"naive {slow:.1f} s, here {ours:.1f} s, {slow / ours:.1f} times faster; bound {2 * N_PAIRS / N_IMAGES:.0f}")
    print(f"pck_point@0.10: naive {hits:.4f}, here {ours_hits:.4f}")


def write_world(root: Path) -> list[tuple[str, str, str]]:
    """24 pictures of two categories with eight keypoints each, and 168 pairs in SPair's layout."""
    rng = np.random.default_rng(0)
    chosen = []
    for category in ("cat", "dog"):
        stems = [f"2008_{category}{i:04d}" for i in range(N_IMAGES // 2)]
        for folder in ("JPEGImages", "ImageAnnotation"):
            (root / folder / category).mkdir(parents=True)
        for stem in stems:
            noise = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC).save(
                root / "JPEGImages" / category / f"{stem}.jpg", quality=92
            )
            annotation = {
                "filename": f"{stem}.jpg",
                "image_width": 320,
                "image_height": 240,
                "bndbox": [40, 30, 280, 210],
                "kps": {str(k): [int(rng.integers(50, 270)), int(rng.integers(40, 200))] for k in range(8)},
            }
            (root / "ImageAnnotation" / category / f"{stem}.json").write_text(json.dumps(annotation))
        every = list(itertools.permutations(stems, 2))
        picked = rng.choice(len(every), N_PAIRS // 2, replace=False)
        chosen += [(category, *every[i]) for i in sorted(picked)]
    (root / "PairAnnotation" / "test").mkdir(parents=True)
    (root / "Layout" / "large").mkdir(parents=True)
    names = []
    for i, (category, a, b) in enumerate(chosen):
        name = f"{i:06d}-{a}-{b}:{category}"
        names.append(name)
        pair = {
            "filename": name,
            "category": category,
            "src_imname": f"{a}.jpg",
            "trg_imname": f"{b}.jpg",
            "src_imsize": [320, 240, 3],
            "trg_imsize": [320, 240, 3],
            "src_bndbox": [40, 30, 280, 210],
            "trg_bndbox": [40, 30, 280, 210],
            "viewpoint_variation": 0,
            "scale_variation": 0,
            "truncation": 0,
            "occlusion": 0,
            "mirror": 0,
            **_shared(root, category, a, b),
        }
        (root / "PairAnnotation" / "test" / f"{name}.json").write_text(json.dumps(pair))
    (root / "Layout" / "large" / "test.txt").write_text("\n".join(names) + "\n")
    return chosen


def _shared(root: Path, category: str, a: str, b: str) -> dict[str, object]:
    kps = [json.loads((root / "ImageAnnotation" / category / f"{s}.json").read_text())["kps"] for s in (a, b)]
    return {"kps_ids": list(kps[0]), "src_kps": list(kps[0].values()), "trg_kps": list(kps[1].values())}


def naive(encoder: Encoder, root: Path, pairs: list[tuple[str, str, str]]) -> list[float]:
    """Errors over the threshold's unit, every picture read and encoded anew for every pair."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))

    def side(category: str, stem: str) -> KeypointImage:
        picture = decode_rgb((root / "JPEGImages" / category / f"{stem}.jpg").read_bytes())
        annotation = json.loads((root / "ImageAnnotation" / category / f"{stem}.json").read_text())
        x = (white_square(picture, SIZE)[None].float() / 255 - mean) / std
        tokens = encoder.features(x, layers=(encoder.depth - 1,), norm="final").tokens[encoder.depth - 1][0]
        points = np.array(list(annotation["kps"].values()), dtype=float)
        return KeypointImage(tokens=unit_map(tokens), keypoints=points, size=(320, 240), box=(40, 30, 280, 210))

    out: list[float] = []
    for category, a, b in pairs:
        found = match_keypoints(side(category, a), side(category, b), SquareGrid(size=SIZE, patch=16), "probe3d")
        out.extend((found.error / found.scale).tolist())
    return out


if __name__ == "__main__":
    main()
