"""The protocols of all tasks, with their presets. No torch: `mtv-eval ls` and the hashes need none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from mtv.errors import UsageError, unknown
from mtv.eval.protocol import Protocol, make_protocol
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
    raise UsageError(f"imagenet.{kind}: {name!r} is neither a file nor one of {', '.join(names)}")


@dataclass(frozen=True, kw_only=True)
class ImageNetProtocol(Protocol):
    """Zero-shot classification (`protocols/zero_shot_and_retrieval.md` sections 2 and 6)."""

    task: ClassVar[str] = "imagenet"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "fast": {"templates": "openai7", "limit": 5000},
        "mini": {"templates": "one"},
    }

    split: Literal["val"] = "val"
    """Split of the data set."""
    templates: str = "openai80"
    """Prompt ensemble: openai80, siglip81, openai7, siglip8, one, or a text file with one template per line."""
    classnames: str = "imagenet"
    """Class names: `imagenet` (the 1000 names that OpenAI curated), or a text file with one name per line."""
    classes: Literal["present", "all"] = "present"
    """Candidate classes: those that the data set holds (all 1000 for the full set), or always all."""
    size: int | None = None
    """Input side in pixels; none for the model's own."""

    def references(self) -> dict[str, str]:
        """Hashes of the template and class-name lists."""
        return {
            "templates": list_sha256("templates", self.templates),
            "classnames": list_sha256("classnames", self.classnames),
        }


@dataclass(frozen=True, kw_only=True)
class KnnProtocol(Protocol):
    """k-nearest-neighbour classification on pooled features, leave-one-out: a look at encoders without text."""

    task: ClassVar[str] = "knn"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}, "mini": {}}

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
    """Geometric correspondence on NAVI (`protocols/correspondence.md` section 2)."""

    task: ClassVar[str] = "navi"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "probe3d": {},
        "centered": _CENTERED,
        "mini": {"stride": 1, "matches": 200},
    }

    mode: Literal["probe3d", "centered"] = "probe3d"
    """`probe3d` keeps the reference's half-cell offsets and self pairs; `centered` removes them (section 2.8)."""
    matches: int = 1000
    """Matches kept per pair, by ratio weight."""
    seed: int = 8
    """Seed of the pair draw."""
    stride: int = 4
    """Every stride-th drawn pair is kept."""
    rgb_cache: Literal["auto", "require", "ignore"] = "auto"
    """Use of the `downsampled_*` files that the reference makes: where all are there, always, never."""


@dataclass(frozen=True, kw_only=True)
class SpairProtocol(DenseProtocol):
    """Semantic correspondence on SPair-71k (`protocols/correspondence.md` section 3)."""

    task: ClassVar[str] = "spair"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "probe3d": {},
        "centered": {**_CENTERED, "pairs": "all"},
        "mini": {"size": 192},
    }

    split: Literal["test", "val", "trn"] = "test"
    """Split of the pair annotations."""
    mode: Literal["probe3d", "centered"] = "probe3d"
    """`probe3d` predicts a cell's top-left corner; `centered` its centre (section 3.3)."""
    size: int = 800
    """Side of the padded square in pixels."""
    pairs: Literal["subset", "all"] = "subset"
    """`subset`: at most `pairs_per_job` pairs per class and viewpoint, drawn by seed; `all`: every pair."""
    pairs_per_job: int = 200
    """Pairs per (class, viewpoint) job in `subset`."""
    seed: int = 20
    """Seed of the shuffle that selects the subset."""


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
    )
}

SUITES: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {"imagenet": {}, "coco": {}, "navi": {}, "spair": {}},
    "mini": {"imagenet": {}, "knn": {}, "coco": {}, "navi": {}, "spair": {}},
    "real": {
        "imagenet": {"templates": "one"},
        "knn": {"data": "spair"},
        "coco": {},
        "flickr8k": {},
        "spair": {},
        "sevenscenes": {},
    },
}
"""Suite to its tasks, in order, with the fields it sets. `real` is made for the small real data sets."""


@dataclass(frozen=True, kw_only=True)
class TaskChoice:
    """One task of a run."""

    task: str
    """Task name."""
    overrides: dict[str, Any]
    """Fields set by the suite."""
    from_suite: bool
    """Whether a suite brought it: then it is skipped for encoders it does not suit, instead of failing."""


def protocol_for(task: str, preset: str = "paper", overrides: dict[str, Any] | None = None) -> Protocol:
    """The protocol of `task` under a preset with overrides.

    Raises:
        UsageError: unknown task, preset or field, with the nearest spellings.
    """
    if task not in PROTOCOLS:
        raise unknown("task", task, PROTOCOLS)
    return make_protocol(PROTOCOLS[task], preset, overrides)


def expand_tasks(names: list[str]) -> list[TaskChoice]:
    """Tasks in the order given, suites expanded, each task once; a task asked for by name wins over its suite.

    Raises:
        UsageError: neither a task nor a suite.
    """
    out: dict[str, TaskChoice] = {}
    for name in names:
        if name in PROTOCOLS:
            out[name] = TaskChoice(task=name, overrides={}, from_suite=False)
        elif name in SUITES:
            for task, fields in SUITES[name].items():
                out.setdefault(task, TaskChoice(task=task, overrides=fields, from_suite=True))
        else:
            raise unknown("task or suite", name, [*PROTOCOLS, *SUITES])
    return list(out.values())
