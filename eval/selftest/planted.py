"""The planted encoder: reads from the pixels who or where they are, and answers with the vectors chosen in `codes`.

A real `Encoder` with real (tiny) weights: it goes through loading, fingerprint, normalisation, extraction and store
like any other. Load it with the spec `python:mtv.eval.selftest.planted:build`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtv.encoders.base import Encoder, Features, Tap, TextKind
from mtv.encoders.build import freeze, make_info
from mtv.encoders.cleaning import clean
from mtv.encoders.policy import IMAGENET_MEAN, IMAGENET_STD
from mtv.encoders.records import ImageRecord, KeyReport, TextRecord
from mtv.encoders.spec import parse_spec
from mtv.eval.selftest.codes import WIDTH, knowledge
from mtv.eval.selftest.pictures import N_IDENTITIES, identity_colour
from mtv.hashing import sha256_lines

SPEC = "python:mtv.eval.selftest.planted:build"
"""How the selftest loads it."""
CONTRAST = 4.0
"""Factor of the surface code: one matching cell then turns a token by far more than fp16 rounds."""


class PlantedTowers(nn.Module):
    """The weights: pixel statistics that it was "trained" with, colours, and the vectors of identities and phrases."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        planted = knowledge()
        self.patch = patch
        self.phrases = planted.phrases
        self.mean = nn.Parameter(torch.tensor(IMAGENET_MEAN))
        self.std = nn.Parameter(torch.tensor(IMAGENET_STD))
        self.colours = nn.Parameter(torch.tensor([identity_colour(i) for i in range(N_IDENTITIES)]))
        self.image_codes = nn.Parameter(torch.from_numpy(planted.image_codes))
        self.phrase_codes = nn.Parameter(torch.from_numpy(planted.phrase_codes))
        self.gain = nn.Parameter(torch.ones(1))

    def patch_colours(self, images_B3HW: Tensor) -> Tensor:
        """Mean colour of every patch in [0, 1]: B,h,w,3."""
        pooled_B3hw = nn.functional.avg_pool2d(images_B3HW, self.patch)
        return pooled_B3hw.permute(0, 2, 3, 1) * self.std + self.mean

    def tokens(self, colours_BhwC: Tensor, layer: int) -> Tensor:
        """Block 1 says where a patch lies on its surface; block 0 knows nothing and says the same everywhere."""
        places = CONTRAST * (colours_BhwC[..., :2] - 0.5)
        here = torch.cat([places, torch.ones_like(places[..., :1])], dim=-1)
        return self.gain * (here if layer == 1 else torch.ones_like(here))

    def embedding(self, colours_BhwC: Tensor) -> Tensor:
        """The vector of the identity whose colour is nearest to the picture's mean: B,WIDTH."""
        distance_BI = torch.cdist(colours_BhwC.mean(dim=(1, 2)), self.colours)
        return self.gain * self.image_codes[distance_BI.argmin(dim=1)]

    def phrase_embedding(self, rows: Sequence[int]) -> Tensor:
        """The vectors of phrases: N,WIDTH."""
        return self.gain * self.phrase_codes[torch.tensor(rows, device=self.phrase_codes.device)]


class PlantedEncoder(Encoder):
    """`PlantedTowers` behind the interface."""

    depth = 2
    width = 3
    embed_dim = WIDTH

    def __init__(self, towers: PlantedTowers, image: ImageRecord) -> None:
        self._towers = towers
        self.patch_size = towers.patch
        text = TextRecord(
            cleaning="canonicalize",
            caption_cleaning="lower",
            tokenizer=f"planted-phrases#{sha256_lines(towers.phrases)[:8]}",
            length=0,
            bos=None,
            eos=-1,
            pad=-1,
            causal=False,
            trim=False,
        )
        # Both cleanings of a known phrase must lead to it.
        self._row = {clean(p, how): i for how in ("lower", "canonicalize") for i, p in enumerate(towers.phrases)}
        self.info = make_info(
            spec=parse_spec(SPEC),
            adapter="python",
            architecture=f"planted-patch{towers.patch}",
            family="custom",
            config={"patch": towers.patch, "phrases": list(towers.phrases)},
            module=towers,
            vision=towers,
            text_module=None,
            activation="none",
            pos_interp="none",
            pooling="vector of the identity whose colour is nearest",
            image=image,
            text=text,
            sources={},
            keys=KeyReport(),
        )

    @property
    def module(self) -> nn.Module:
        """The towers."""
        return self._towers

    def forward_features(self, images_B3HW: Tensor, *, layers: Sequence[int], norm: Tap, pooled: bool) -> Features:
        """See `Encoder.features`; there is no final norm, so both taps read the same."""
        colours_BhwC = self._towers.patch_colours(images_B3HW)
        tokens = {i: self._towers.tokens(colours_BhwC, i) for i in layers}
        if not pooled:
            return Features(tokens=tokens, pooled=None, global_token=None)
        last_BhwC = self._towers.tokens(colours_BhwC, 1)
        return Features(
            tokens=tokens, pooled=self._towers.embedding(colours_BhwC), global_token=last_BhwC.mean(dim=(1, 2))
        )

    def encode_text(self, strings: Sequence[str], *, kind: TextKind = "prompt", batch_size: int = 256) -> Tensor:
        """The vector of a known caption, or of the class name inside a prompt, else that of unknown strings."""
        assert self.info.text is not None
        how = self.info.text.cleaning if kind == "prompt" else self.info.text.caption_cleaning
        with torch.no_grad():
            return self._towers.phrase_embedding([self._find(clean(s, how)) for s in strings]).float()

    def _find(self, text: str) -> int:
        if text in self._row:
            return self._row[text]
        inside = [p for p in self._row if f" {p} " in f" {text} "]
        return self._row[max(inside, key=len)] if inside else len(self._towers.phrases)


def build() -> PlantedEncoder:
    """The factory of `SPEC`."""
    return planted_encoder()


def planted_encoder(
    *, patch: int = 16, image: ImageRecord | None = None, weights: Mapping[str, Tensor] | None = None
) -> PlantedEncoder:
    """A planted encoder with another patch, image record or weights.

    Args:
        patch: pixels per token side.
        image: input policy; by default pictures of two patches a side under the statistics the weights expect.
        weights: entries that replace those of the state dict.
    """
    towers = PlantedTowers(patch)
    if weights is not None:
        towers.load_state_dict({**towers.state_dict(), **weights})
    freeze(towers)
    record = ImageRecord(size=2 * patch, mean=IMAGENET_MEAN, std=IMAGENET_STD, resize="crop")
    return PlantedEncoder(towers, image or record)
