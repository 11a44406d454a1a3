"""The protocols of all tasks, with their presets. No torch: `mtv-eval ls` and the hashes need none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from mtv.errors import UsageError, unknown
from mtv.eval.protocol import Protocol, make_protocol
from mtv.eval.protocols_dense import Ade20kProtocol, CamVidProtocol, Nyu40Protocol, NyuProtocol
from mtv.eval.protocols_rel import RelKittiProtocol, RelNyuProtocol
from mtv.hashing import sha256_file

TapNorm = Literal["auto", "none", "final"]
Statistics = Literal["imagenet", "model"]

# SHA-256 of the lists joined by LF, so that a protocol hash needs no model library; tests compare with the lists.
LIST_SHA256 = {
    "classnames:imagenet": "571ae1c583b4be7da87519494c52bf405a46af05d5815627c7a0dee997068b60",
    "templates:openai80": "4f976686fb651bb5803d4689dcd849f75efe0ef19a3c801355bc9a6f03c8a5af",
    "templates:siglip81": "617764ae37ca494aff67b36e2f3b3919d44fd3eeb5b4dba56f207ad6723c3d05",
    "templates:openai7": "6ef3883987d224b7949da69fe0b615af152e1560eaac4c5c38555e50c882d415",
    "templates:siglip8": "5c945b4b35da9f638c63452151f797454d084aead4c1a8a90a8b592e93ed91ba",
    "templates:one": "0cfd7b4bb44576705c72ffa09098fc558cfdf9e2ef786887905793afa6d8f065",
}

OWN_NAMES = "dataset"
"""Value of `imagenet.classnames` for the names that come with the data; the data fingerprint covers them."""


def list_sha256(kind: str, name: str) -> str:
    """Hash of a named list, or of the user's file of that name.

    Raises:
        UsageError: neither a known name nor a file.
    """
    if known := LIST_SHA256.get(f"{kind}:{name}"):
        return known
    if Path(name).is_file():
        return sha256_file(name)
    names = [k.split(":")[1] for k in LIST_SHA256 if k.startswith(f"{kind}:")]
    names += [OWN_NAMES] if kind == "classnames" else []
    raise UsageError(f"imagenet.{kind}: {name!r} is neither a file nor one of {', '.join(names)}")


@dataclass(frozen=True, kw_only=True)
class ImageNetProtocol(Protocol):
    """Zero-shot classification (`protocols/zero_shot_and_retrieval.md` sections 2 and 6).

    `mini` is for sets of other classes than ImageNet's, which bring their names; one template, because an ensemble
    averages over styles (sketch, origami, video game) that generated pictures do not have.
    """

    task: ClassVar[str] = "imagenet"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "fast": {"templates": "openai7", "limit": 5000},
        "mini": {"templates": "one", "classnames": OWN_NAMES},
    }

    split: Literal["val"] = "val"
    """Split of the data set."""
    templates: str = "openai80"
    """Prompt ensemble: openai80, siglip81, openai7, siglip8, one, or a text file with one template per line."""
    classnames: str = "imagenet"
    """Class names: `imagenet` (the 1000 names that OpenAI curated), `dataset` (the names in the `classnames.txt` of a
    set of other classes), or a text file with one name per line."""
    classes: Literal["present", "all"] = "present"
    """Candidate classes: those that the data set holds (all 1000 for the full set), or always all."""
    size: int | None = None
    """Input side in pixels; none for the model's own."""

    def references(self) -> dict[str, str]:
        """Hashes of the template and class-name lists; a data set's own names are in its fingerprint instead."""
        out = {"templates": list_sha256("templates", self.templates)}
        if self.classnames != OWN_NAMES:
            out["classnames"] = list_sha256("classnames", self.classnames)
        return out


@dataclass(frozen=True, kw_only=True)
class KnnProtocol(Protocol):
    """k-nearest-neighbour classification on pooled features, leave-one-out: a look at encoders without text.

    `mini` halves k: in a class of a few dozen pictures 20 neighbours reach beyond the ones that look alike, and a class
    of 20 or fewer could not fill the vote.
    """

    task: ClassVar[str] = "knn"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}, "mini": {"k": 10}}

    data: Literal["imagenet", "spair"] = "imagenet"
    """Labelled set: ImageNet val by class, or an SPair-layout set by category."""
    k: int = 20
    """Neighbours that vote."""
    temperature: float = 0.07
    """Votes are weighted exp(cosine / temperature)."""
    feature: Literal["pooled", "global"] = "pooled"
    """`pooled`: the embedding that is compared with text; `global`: the vector before the projection."""
    size: int | None = None
    """Input side in pixels; none for the model's own."""


@dataclass(frozen=True, kw_only=True)
class RetrievalProtocol(Protocol):
    """Image-text retrieval (`protocols/zero_shot_and_retrieval.md` sections 3 and 6)."""

    captions: Literal["all", "first5", "first1"] = "all"
    """Captions per image that enter the pool."""
    prefix: str = ""
    """Put before every caption; OpenAI's own COCO rows used 'a photo of '."""
    positives: Literal["own", "same_text"] = "own"
    """`same_text` also accepts images whose caption has the same text."""
    score: Literal["cosine", "dual_softmax"] = "cosine"
    """`dual_softmax` looks at all queries at once: not comparable with cosine."""
    dual_softmax_scale: float = 100.0
    """Factor on the cosine inside the softmax; only used by dual_softmax."""
    size: int | None = None
    """Input side in pixels; none for the model's own."""


@dataclass(frozen=True, kw_only=True)
class CocoProtocol(RetrievalProtocol):
    """COCO captions."""

    task: ClassVar[str] = "coco"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}, "mini": {}}
    split: Literal["karpathy-test", "val2017"] = "karpathy-test"
    """Karpathy's 5,000 test images of val2014, or the official val2017: other images, another number."""


@dataclass(frozen=True, kw_only=True)
class Flickr30kProtocol(RetrievalProtocol):
    """Flickr30k captions."""

    task: ClassVar[str] = "flickr30k"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}, "mini": {}}
    split: Literal["karpathy-test"] = "karpathy-test"
    """Karpathy's 1,000 test images."""


@dataclass(frozen=True, kw_only=True)
class Flickr8kProtocol(RetrievalProtocol):
    """Flickr8k captions."""

    task: ClassVar[str] = "flickr8k"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}, "mini": {}}
    split: Literal["karpathy-test"] = "karpathy-test"
    """The 1,000 test images."""


@dataclass(frozen=True, kw_only=True)
class DenseProtocol(Protocol):
    """Fields shared by the correspondence tasks (`protocols/correspondence.md`)."""

    layer: int = -1
    """Block whose patch tokens are matched, 0-based or negative from the end."""
    norm: TapNorm = "auto"
    """`none`: residual stream; `final`: after the final norm; `auto`: what the libraries' last_hidden_state is, that is
    none for CLIP towers and final for all others. The resolved tap is in the result."""
    statistics: Statistics = "imagenet"
    """Normalisation of the pixels: ImageNet's for every encoder, or the encoder's own."""
    storage: Literal["fp16", "fp32"] = "fp16"
    """Dtype in which token maps are kept between extraction and matching."""


_CENTERED = {"mode": "centered", "statistics": "model"}


@dataclass(frozen=True, kw_only=True)
class NaviProtocol(DenseProtocol):
    """Geometric correspondence on NAVI (`protocols/correspondence.md` section 2).

    `mini` is for photos with a shorter side of about 192 pixels. Crops keep their part of the frame at any size; 256
    gives a patch-8 ViT the 32 x 32 tokens that a patch-16 ViT has in the original, and a patch-16 ViT 16 x 16. Cells
    keep the original's four pixels, and 244 of 64 x 64 is the original's share of cells (1000 of 128 x 128). All drawn
    pairs are scored, for a small set has few. It builds on `centered`: `probe3d` would enlarge the photos to 1024
    first, match pictures with themselves, and fail for an object with fewer cells than matches.
    """

    task: ClassVar[str] = "navi"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "probe3d": {},
        "centered": _CENTERED,
        "mini": {**_CENTERED, "size": 256, "grid": 64, "stride": 1, "matches": 244},
    }

    mode: Literal["probe3d", "centered"] = "probe3d"
    """`probe3d` keeps the reference's half-cell offsets and self pairs; `centered` removes them (section 2.8)."""
    size: int = 512
    """Side in pixels of the centre crop and of the object crop resized; 5, 25 and 50 px scale with size / 512."""
    grid: int = 128
    """Matching cells per side; must divide the size."""
    matches: int = 1000
    """Matches kept per pair, by ratio weight."""
    seed: int = 8
    """Seed of the pair draw."""
    stride: int = 4
    """Every stride-th drawn pair is kept."""
    rgb_cache: Literal["auto", "require", "ignore"] = "auto"
    """Use of the `downsampled_*` files that the reference makes: where all are there, always, never."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.size, self.grid) < 1 or self.size % self.grid:
            raise UsageError(f"navi.grid must divide navi.size, got grid {self.grid} and size {self.size}")


@dataclass(frozen=True, kw_only=True)
class SpairProtocol(DenseProtocol):
    """Semantic correspondence on SPair-71k (`protocols/correspondence.md` section 3).

    `mini` is for pictures with a shorter side of about 192 pixels: squares of 192, and `centered`, because at that size
    the corner that stands for a cell in `probe3d` is off by 4 % of the side along both axes for patch 16, where the
    radius is 5 % for an object that fills half the picture. A small set has few pairs, so all are scored.
    """

    task: ClassVar[str] = "spair"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "probe3d": {},
        "centered": {**_CENTERED, "pairs": "all"},
        "mini": {**_CENTERED, "size": 192, "pairs": "all"},
    }

    split: Literal["test", "val", "trn"] = "test"
    """Split of the pair annotations."""
    mode: Literal["probe3d", "centered"] = "probe3d"
    """`probe3d` predicts a cell's top-left corner; `centered` its centre (section 3.3)."""
    size: int = 800
    """Side in pixels to which the padded square is resized."""
    pairs: Literal["subset", "all"] = "subset"
    """`subset`: at most `pairs_per_job` pairs per class and viewpoint, drawn by seed; `all`: every pair."""
    pairs_per_job: int = 200
    """Pairs per (class, viewpoint) job in `subset`."""
    seed: int = 20
    """Seed of the shuffle that selects the subset."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 1:
            raise UsageError(f"spair.size must be at least 1, got {self.size}")


@dataclass(frozen=True, kw_only=True)
class SevenScenesProtocol(DenseProtocol):
    """Geometric correspondence on posed RGB-D frames (last section of `protocols/correspondence.md`)."""

    task: ClassVar[str] = "sevenscenes"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}, "mini": {"matches": 200}}

    statistics: Statistics = "model"
    """As in `centered`: the encoder's own statistics."""
    pairs: Literal["drawn", "all"] = "drawn"
    """`drawn`: `n_pairs` pairs stratified by rotation angle; `all`: every candidate (minutes of matching on a CPU)."""
    n_pairs: int = 60
    """Pairs in `drawn`."""
    seed: int = 8
    """Seed of the draw."""
    matches: int = 1000
    """Matches kept per pair, by ratio weight."""


PROTOCOLS: dict[str, type[Protocol]] = {
    p.task: p
    for p in (
        ImageNetProtocol,
        KnnProtocol,
        CocoProtocol,
        Flickr30kProtocol,
        Flickr8kProtocol,
        NaviProtocol,
        SpairProtocol,
        SevenScenesProtocol,
        Ade20kProtocol,
        CamVidProtocol,
        Nyu40Protocol,
        NyuProtocol,
        RelNyuProtocol,
        RelKittiProtocol,
    )
}

PLANNED: dict[str, str] = {"vqa": "MMVP, CV-Bench and RealWorldQA, answered by a language model that reads the tokens"}
"""Tasks that suites name already but that cannot run yet, and what they are. A task moves from here to `PROTOCOLS`."""


def protocol_for(task: str, preset: str = "paper", overrides: dict[str, Any] | None = None) -> Protocol:
    """The protocol of `task` under a preset with overrides.

    Raises:
        UsageError: unknown task, preset or field, with the nearest spellings.
    """
    if task in PLANNED:
        raise not_available(task)
    if task not in PROTOCOLS:
        raise unknown("task", task, PROTOCOLS)
    return make_protocol(PROTOCOLS[task], preset, overrides)


def not_available(task: str) -> UsageError:
    """The error for a task of `PLANNED` that was asked for by name."""
    return UsageError(
        f"task {task} is not available yet: {PLANNED[task]}",
        "Suites leave it out and say so; its data sets can be checked already with `mtv-eval data check`.",
    )
