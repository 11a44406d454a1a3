"""A small world for the tests of tasks, runner and command line: every data set in its true layout, and small models.

Pictures are those of the miniature world under noise, which random weights tell apart by far more than float32 rounds;
labels and texts are planted, so that answers are known.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TINY_SOURCE = '''
"""A dense model with text, batch norm and dropout; it notes every picture that passes, and can be slow."""
import os
import time

import torch
from torch import nn


class Tiny(nn.Module):
    patch_size = 8
    size = 32
    mean = (0.5, 0.4, 0.3)
    std = (0.25, 0.2, 0.3)
    resize = "squash"

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.patch = nn.Conv2d(3, 24, 8, 8)
            self.norm = nn.BatchNorm2d(24)
            self.drop = nn.Dropout(0.5)
            self.mix = nn.Conv2d(24, 24, 3, padding=1)
            self.words = nn.Embedding(256, 24)
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.5, 2.0)

    def forward(self, x):
        if bool((x != 0).any()):  # not the grey picture of the contract check
            note(len(x))
        y = self.drop(self.norm(self.patch(x)))
        y = y + torch.tanh(self.mix(y))
        return y, y.mean((2, 3))

    def encode_text(self, strings):
        rows = []
        for text in strings:
            codes = torch.tensor(list(text.encode()) or [0], device=self.words.weight.device)
            place = torch.cos(torch.arange(len(codes), device=codes.device) * 0.7)
            rows.append((self.words(codes) * place[:, None]).mean(0))
        return torch.stack(rows)


def note(n):
    time.sleep(n * float(os.environ.get("TINY_DELAY", "0")))
    if "TINY_LOG" in os.environ:
        handle = os.open(os.environ["TINY_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(handle, f"{n}\\n".encode())
        os.close(handle)


def build():
    return Tiny().eval()


def other():
    return Tiny(seed=1)


def without_text():
    model = Tiny()
    model.encode_text = None
    return model


def nan_weights():
    model = Tiny()
    model.mix.bias.data[3] = float("nan")
    return model


class Overflows(Tiny):
    """Infinite for pictures that are darker than `limit`."""
    limit = -1.0

    def forward(self, x):
        y, pooled = super().forward(x)
        dark = x.mean((1, 2, 3)) < self.limit
        return y, torch.where(dark[:, None] & (x != 0).any(), torch.inf, pooled)


def infinite_on_black():
    return Overflows()


def infinite_everywhere():
    model = Overflows()
    model.limit = 100.0
    return model


def broken():
    raise RuntimeError("no such luck")
'''

_RENDERED = 97
"""Different scenes; a prime, so that numbers in a pattern do not share scenes."""
WNIDS = ("n01440764", "n01443537", "n01484850", "n01491361", "n01494475")
"""The first five classes of ImageNet-1k."""


@functools.cache
def rendered() -> tuple[np.ndarray, ...]:
    """Pictures of the miniature world, 48 x 48."""
    from mtv.miniworld.compose import make_scene
    from mtv.miniworld.render import render
    from mtv.miniworld.spec import SceneRequest, WorldSpec

    spec = WorldSpec(size=48)
    requests = [SceneRequest(split="tests", index=i, purpose="several", width=48, height=48) for i in range(_RENDERED)]
    return tuple(frame.rgb_HW3 for frame in render([make_scene(spec, r) for r in requests]))


def noise(seed: int, width: int, height: int, *, base: int | None = None) -> Image.Image:
    """A picture of the miniature world under noise; pictures of one `base` show the same scene."""
    scenes = rendered()
    coarse = Image.fromarray(scenes[(seed if base is None else base) % len(scenes)]).resize((width, height))
    fine = np.random.default_rng(seed).integers(-40, 41, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse).astype(int) + fine, 0, 255).astype(np.uint8))


def save(image: Image.Image, path: Path, **options: Any) -> None:
    """Write a picture, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def write_json(path: Path, value: object) -> None:
    """Write JSON, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_imagenet(root: Path, per_class: Sequence[int] = (4, 4, 3, 4, 1)) -> None:
    """`imagenet/val/<wnid>/ILSVRC2012_val_########.JPEG`."""
    number = 0
    for label, (wnid, count) in enumerate(zip(WNIDS, per_class, strict=True)):
        for k in range(count):
            number += 1
            picture = noise(number, 44 + number, 40, base=20 + label if k % 2 else None)
            save(picture, root / "imagenet" / "val" / wnid / f"ILSVRC2012_val_{number:08d}.JPEG", format="JPEG")


COCO_CAPTIONS = {
    9: ["A dog on a beach.", "a dog  on a beach.\n", "Sand.", "One dog, running.", "A dog."],
    25: ["Two giraffes eat.", "Giraffes.", "A dog.", "tall animals", "trees and giraffes"],
    61: ["An elephant walks.", "An elephant.", "Grey animal.", "A big animal.", "Forest.", "An Elephant."],
    90: ["A red bus.", "Street with a bus.", "A bus in town.", "Forest.", "Public transport."],
    133: ["A bed.", "A bed with pillows.", "A room.", "White sheets.", "Somebody sleeps here."],
    136: ["Men play ball.", "A game.", "A ball in the air.", "Sports.", "Players on grass.", "A game.", "Ball."],
}
"""COCO id to captions: five to seven, with repetitions within a picture and between pictures."""


def write_coco(root: Path) -> None:
    """`coco/dataset_coco.json` and `coco/val2014/`, with one picture of another split."""
    records: list[dict[str, object]] = []
    for coco_id, captions in COCO_CAPTIONS.items():
        name = f"COCO_val2014_{coco_id:012d}.jpg"
        save(noise(100 + coco_id, 50, 38), root / "coco" / "val2014" / name)
        records.append(_karpathy(name, captions, "test") | {"filepath": "val2014", "cocoid": coco_id})
    other = _karpathy("COCO_val2014_000000000042.jpg", ["Of another split."], "val")
    write_json(
        root / "coco" / "dataset_coco.json", {"images": [other | {"filepath": "val2014", "cocoid": 42}, *records]}
    )


def write_flickr(root: Path) -> None:
    """`flickr30k` (Karpathy file) and `flickr8k` (CSV and list of test pictures)."""
    captions = list(COCO_CAPTIONS.values())
    records = []
    for k in range(4):
        name = f"{1007129816 + k}.jpg"
        save(noise(300 + k, 40, 52), root / "flickr30k" / "flickr30k-images" / name)
        records.append(_karpathy(name, captions[k][:5], "test"))
    write_json(root / "flickr30k" / "dataset_flickr30k.json", {"images": records})
    names = [f"{k}_b1c2.jpg" for k in range(400, 405)]
    lines = ["image,caption"]
    for k, name in enumerate(names):
        save(noise(400 + k, 44, 44), root / "flickr8k" / "Images" / name)
        lines += [f'{name},"{c.strip()}"' for c in captions[k][:5]]
    (root / "flickr8k" / "captions.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (root / "flickr8k" / "Flickr_8k.testImages.txt").write_text("\n".join(names) + "\n", encoding="utf-8")


def _karpathy(name: str, captions: Sequence[str], split: str) -> dict[str, object]:
    return {"filename": name, "split": split, "sentences": [{"raw": c} for c in captions]}


SPAIR_SIZES = ((60, 48), (40, 56), (64, 64), (52, 44))
"""Width, height of the four pictures of a category."""


def write_spair(root: Path) -> None:
    """`SPair-71k` with three categories of four pictures and all twelve ordered pairs each, in three viewpoints."""
    base, number = root / "SPair-71k", 0
    for c, category in enumerate(("bus", "cat", "dog")):
        rng = np.random.default_rng(500 + c)
        names = [f"2008_{10 * c + k:06d}.jpg" for k in range(4)]
        for k, (name, (width, height)) in enumerate(zip(names, SPAIR_SIZES, strict=True)):
            save(noise(600 + 10 * c + k, width, height, base=600 + c), base / "JPEGImages" / category / name)
            points = {str(i): [float(rng.uniform(2, width - 3)), float(rng.uniform(2, height - 3))] for i in range(6)}
            points |= {str((k + c) % 6): None}  # type: ignore[dict-item]
            annotation = {
                "filename": name, "image_width": width, "image_height": height,
                "bndbox": [4.0, 5.0, 4.0 + width * 0.6, 5.0 + height * 0.7], "kps": points,
            }  # fmt: skip
            write_json((base / "ImageAnnotation" / category / name).with_suffix(".json"), annotation)
        for a in range(4):
            for b in range(4):
                if a == b:
                    continue
                number += 1
                stem = f"{number:06d}-{names[a][:-4]}-{names[b][:-4]}:{category}"
                pair = {
                    "filename": stem, "category": category, "src_imname": names[a], "trg_imname": names[b],
                    "src_imsize": [*SPAIR_SIZES[a], 3], "trg_imsize": [*SPAIR_SIZES[b], 3],
                    "viewpoint_variation": 0 if c == 0 else number % 3,
                }  # fmt: skip
                write_json(base / "PairAnnotation" / "test" / f"{stem.replace(':', '_')}.json", pair)


def rotation(axis: Sequence[float], degrees: float) -> np.ndarray:
    """Rotation matrix (Rodrigues)."""
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    t = np.radians(degrees)
    return np.eye(3) + np.sin(t) * k + (1 - np.cos(t)) * k @ k


SCENE_SIZE = (64, 48)
SCENE_ANGLES = (0.0, 8.0, 20.0, 40.0)


def write_sevenscenes(root: Path) -> None:
    """`7scenes/chess/seq-01` with four frames that turn about the viewing axis in front of a slanted wall."""
    chess = root / "7scenes" / "chess"
    width, height = SCENE_SIZE
    chess.mkdir(parents=True, exist_ok=True)
    np.savetxt(chess / "camera-intrinsics.txt", [[70.0, 0, width / 2], [0, 66.0, height / 2], [0, 0, 1]])
    (chess / "seq-01").mkdir()
    for k, angle in enumerate(SCENE_ANGLES):
        stem = chess / "seq-01" / f"frame-{k:06d}"
        save(noise(700, width, height).rotate(angle, Image.Resampling.BICUBIC), Path(f"{stem}.color.png"))
        y_HW, x_HW = np.mgrid[:height, :width]
        depth = (1500 + 6 * x_HW - 4 * y_HW).astype(np.uint16)
        depth[:9, :13] = 0
        depth[40:, 50:] = 65535
        Image.fromarray(depth).save(f"{stem}.depth.png")
        pose = np.eye(4)
        pose[:3, :3] = rotation((0.1, 0.05, 1), angle)
        pose[:3, 3] = (0.02 * k, -0.03 * k, 0.01)
        np.savetxt(f"{stem}.pose.txt", pose)


def write_navi(root: Path) -> None:
    """`navi_v1.5` with two objects of four views; depth in a few small blocks, so that few cells are matched."""
    for o, name in enumerate(("car", "duck")):
        wild = root / "navi_v1.5" / name / "wild_set"
        (wild.parent / "multiview-00-pixel").mkdir(parents=True, exist_ok=True)
        records = []
        for k in range(4):
            width, height = (120, 96) if k % 2 else (96, 112)
            rng = np.random.default_rng(800 + 10 * o + k)
            save(noise(800 + k, width, height, base=800 + o), wild / "images" / f"{k:03d}.jpg")
            codes = np.zeros((height, width), np.uint16)
            for row, col in ((20, 24), (20, 70), (70, 24), (70, 70), (44, 46)):
                codes[row : row + 5, col : col + 5] = 650 + rng.integers(0, 30, (5, 5))
            save(Image.fromarray(codes), wild / "depth" / f"{k:03d}.png")
            angle = np.radians(25.0 * k) / 2
            axis = np.array([0.2, 1.0, 0.1]) / np.linalg.norm([0.2, 1.0, 0.1])
            camera = {
                "q": [2 * float(np.cos(angle)), *(2 * np.sin(angle) * axis).tolist()], "t": [3.0 * k, 5.0 * o, 1000.0],
                "focal_length": 150.0, "camera_model": "pixel",
            }  # fmt: skip
            records.append(
                {
                    "object_id": name, "scene_name": "wild_set", "filename": f"{k:03d}.jpg", "split": "val",
                    "filename_original": f"{k:03d}.jpg", "image_size": [height, width], "occluded": False,
                    "camera": camera,
                }
            )  # fmt: skip
        write_json(wild / "annotations.json", records)


def write_world(root: Path) -> Path:
    """All data sets; returns the data root."""
    for write in (write_imagenet, write_coco, write_flickr, write_spair, write_sevenscenes, write_navi):
        write(root)
    return root


def write_tiny(folder: Path) -> Path:
    """The model file; specs are `python:<file>:build` and so on."""
    path = folder / "tiny_model.py"
    path.write_text(TINY_SOURCE, encoding="utf-8")
    return path


def write_clip(folder: Path) -> Path:
    """A directory in open_clip's layout: a two-tower model with random weights and CLIP's own tokenizer."""
    from safetensors.torch import save_file

    from mtv.encoders.open_clip_backend import build_model
    from mtv.encoders.spec import parse_spec

    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    folder.mkdir(parents=True, exist_ok=True)
    statistics = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    write_json(folder / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": statistics})
    model = build_model(config, seed=3, spec=parse_spec("open_clip:x@random"))
    state = {k: v.clone().contiguous() for k, v in model.state_dict().items()}
    # Random towers answer nearly the same to everything; louder inputs make the scores differ.
    for name, factor in (("visual.conv1.weight", 60), ("token_embedding.weight", 60)):
        state[name] = state[name] * factor
    save_file(state, str(folder / "open_clip_model.safetensors"))
    return folder
