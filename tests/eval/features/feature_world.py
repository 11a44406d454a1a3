"""A small world for the tests of the feature room: pictures on disk, their preparation, and a small real encoder."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from mtv.encoders.base import Encoder, Features
from mtv.encoders.records import EncoderInfo, ImageRecord, TextRecord
from mtv.errors import DataError
from mtv.eval.datasets.base import FileRef
from mtv.eval.features.options import ExtractOptions
from mtv.eval.features.request import FeatureRequest, Preparation

SIDE = 32


class PngPreparation(Preparation):
    """PNG bytes to pixels, resized to a side; waits `delay_s` per picture."""

    def __init__(self, side: int = SIDE, delay_s: float = 0.0) -> None:
        self.side = side
        self.delay_s = delay_s

    def __call__(self, sample_id: str, blobs: Sequence[bytes]) -> Tensor:
        if self.delay_s:
            time.sleep(self.delay_s)
        try:
            image = Image.open(io.BytesIO(blobs[0])).convert("RGB").resize((self.side, self.side))
        except OSError as e:
            raise DataError(f"sample {sample_id!r} cannot be decoded: {e}") from e
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

    def record(self) -> dict[str, Any]:
        return {"side": self.side, "name": "png"}


class TinyTower(nn.Module):
    """Patch embedding, `depth` token-wise blocks, a projection, and a bag-of-bytes text tower."""

    def __init__(self, patch: int, width: int, depth: int, embed: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, patch, patch)
        self.blocks = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.proj = nn.Linear(width, embed)
        self.text = nn.Embedding(256, embed)


class TinyEncoder(Encoder):
    """A real encoder of a few thousand weights; counts what goes through it and can be told to misbehave."""

    def __init__(self, seed: int = 0, patch: int = 8, width: int = 16, depth: int = 3, embed: int = 12) -> None:
        torch.manual_seed(seed)
        self._module = TinyTower(patch, width, depth, embed).eval()
        self.patch_size, self.depth, self.width, self.embed_dim = patch, depth, width, embed
        text = TextRecord(
            cleaning="none", caption_cleaning="none", tokenizer="bytes", length=64, bos=None, eos=0, pad=0,
            causal=False, trim=False,
        )  # fmt: skip
        self.info = EncoderInfo(
            spec=f"python:tiny?seed={seed}", alias=None, adapter="python", architecture=f"tiny-{width}",
            family="custom",
            random=True, weights_sha256=f"weights-{seed}", fingerprint=f"fingerprint-{seed}-{width}", params_m=0.01,
            params_by_tower={"vision": 0.01}, activation="gelu", pos_interp="none", pooling="mean",
            image=ImageRecord(size=SIDE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), resize="squash"),
            text=text, sources={},
        )  # fmt: skip
        self.images = 0
        self.batches: list[int] = []
        self.texts = 0
        self.before: Callable[[Tensor], None] = lambda x: None
        self.after: Callable[[Tensor], Tensor] = lambda x: x

    @property
    def module(self) -> nn.Module:
        return self._module

    def forward_features(self, images_B3HW: Tensor, *, layers: Sequence[int], norm: str, pooled: bool) -> Features:
        self.before(images_B3HW)
        self.images += len(images_B3HW)
        self.batches.append(len(images_B3HW))
        x = self._module.patch(images_B3HW).permute(0, 2, 3, 1)
        tokens = {}
        for i, block in enumerate(self._module.blocks):
            x = x + torch.nn.functional.gelu(block(x))
            if i in layers:
                tokens[i] = self.after(self._module.norm(x) if norm == "final" else x)
        mean = self._module.norm(x).mean((1, 2))
        return Features(
            tokens=tokens,
            pooled=self.after(self._module.proj(mean)) if pooled else None,
            global_token=mean if pooled else None,
        )

    def encode_text(self, strings: Sequence[str], *, kind: str = "prompt", batch_size: int = 256) -> Tensor:
        self.texts += len(strings)
        with torch.no_grad():
            rows = [self._module.text(torch.tensor(list(f"{kind}:{s}".encode()))).mean(0) for s in strings]
        return self.after(torch.stack(rows))


def write_pictures(folder: Path, n: int, *, side: int = SIDE, first: int = 0) -> dict[str, tuple[FileRef, ...]]:
    """`n` noise pictures, with time stamps old enough for the content index to trust."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for i in range(first, first + n):
        name = f"im{i:04d}.png"
        save_noise(folder / name, seed=i, side=side)
        files[f"im{i:04d}"] = (FileRef(path=folder / name, name=name),)
    return files


def save_noise(path: Path, *, seed: int, side: int = SIDE) -> None:
    """One uncompressed-size-stable noise picture (stored without compression, so that all files are equally long)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, compress_level=0)


def request_for(files: dict[str, tuple[FileRef, ...]], **changes: Any) -> FeatureRequest:
    """Dense and pooled outputs by default."""
    fields: dict[str, Any] = {
        "data": "noise", "files": files, "preparation": PngPreparation(),
        "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4),
        "layers": (0, 2), "norm": "final", "pooled": True, "global_token": True,
    }  # fmt: skip
    return FeatureRequest(**{**fields, **changes})


def options_for(cache: Path | None, **changes: Any) -> ExtractOptions:
    """In-process loading in batches of 4 by default."""
    return ExtractOptions(**{"cache_dir": cache, "workers": 0, "batch_size": 4, **changes})


def naive(encoder: TinyEncoder, request: FeatureRequest, sample_id: str) -> dict[str, Tensor]:
    """The oracle: one picture at a time, straight through the encoder."""
    pixels = request.preparation(sample_id, [r.read() for r in request.files[sample_id]]).double() / 255
    x = (pixels - torch.tensor(request.mean)[:, None, None]) / torch.tensor(request.std)[:, None, None]
    f = encoder.features(x.float()[None], layers=request.layers, norm=request.norm, pooled=True)
    out = {f"layer{i}": f.tokens[i][0].half().float() for i in request.layers}
    if request.storage == "fp32":
        out = {f"layer{i}": f.tokens[i][0] for i in request.layers}
    assert f.pooled is not None
    assert f.global_token is not None
    return {**out, "pooled": f.pooled[0], "global": f.global_token[0]}


def age(path: Path) -> None:
    """Pretend that the file has not been touched for an hour (its ctime still says otherwise)."""
    past = time.time() - 3600
    os.utime(path, (past, past))


def shards_in(cache: Path) -> Iterator[Path]:
    """Shard files of a cache with one entry."""
    return iter(sorted(cache.glob("*/shard-*.safetensors")))
