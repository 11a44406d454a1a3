"""Options of a recipe beside the data's: losses, optimiser, speed, logs, checkpoints, evaluation.

Every default is that of `protocols/pretraining.md` sections 6, 7, 8 and 10. No torch here: recipes are listed without
it. Sizes of the model and of its heads stand in `mtv.model.config`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from mtv.errors import UsageError
from mtv.fields import choices


@dataclass(frozen=True, kw_only=True)
class _Checked:
    """Fields with a fixed set of values are checked against it."""

    def __post_init__(self) -> None:
        for name, allowed in choices(type(self)).items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"{self._at(name)} must be one of {', '.join(map(str, allowed))}")

    def _at(self, name: str) -> str:
        return f"{type(self).__name__}.{name}={getattr(self, name)!r}"

    def _check(self, name: str, fits: bool, rule: str) -> None:
        if not fits:
            raise UsageError(f"{self._at(name)} {rule}")


@dataclass(frozen=True, kw_only=True)
class VlOptions(_Checked):
    """Image-text loss."""

    weight: float = 1.0
    """Weight in the total."""
    init_scale: float = 10.0
    """Initial factor on the cosine, learnt as its logarithm; of regions too, unless they have their own."""
    init_bias: float = -10.0
    """Initial bias of the logits. AdamW moves it by at most the learning rate in a step, so a short run keeps it."""
    max_log_scale: float | None = None
    """Upper limit of the log-scale after every step; None: no limit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("init_scale", self.init_scale > 0, "must be positive")


@dataclass(frozen=True, kw_only=True)
class SslOptions(_Checked):
    """Self-distillation, masked prediction, KoLeo and the teacher."""

    dino_weight: float = 1.0
    """Weight of self-distillation."""
    ibot_weight: float = 2.0
    """Weight of masked prediction."""
    koleo_weight: float = 0.1
    """Weight of KoLeo."""
    tau_s: float = 0.1
    """Temperature of the student."""
    tau_t: tuple[float, float] = (0.04, 0.07)
    """Temperature of the teacher, first and last."""
    tau_t_warmup: float = 0.3
    """Share of the steps over which it rises, linearly."""
    teacher_momentum: float = 0.994
    """Share of the teacher that stays in every step."""
    center_momentum: float = 0.9
    """Share of the centres that stays in every step."""
    koleo_group: int = 256
    """Images among which KoLeo looks for neighbours, in batch order."""
    reduction: Literal["mean", "sum_crops"] = "mean"
    """Self-distillation over the crops of an image: mean, or the paper's literal sum."""
    chunk_rows: int = 2048
    """Rows whose prototype logits are alive at once."""
    freeze_prototypes: int = 0
    """First steps in which the prototypes get no gradient."""
    alarm: float = 0.05
    """The collapse alarm rings when the mean target has less entropy than this share of ln K (one prototype for all),
    or the targets are nearer to ln K than a tenth of this share (all prototypes alike)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("tau_t", 0 < self.tau_t[0] <= self.tau_t[1], "must be positive and not fall")
        self._check("tau_s", self.tau_s > 0, "must be positive")
        self._check("tau_t_warmup", 0 <= self.tau_t_warmup <= 1, "must be between 0 and 1")
        for name in ("teacher_momentum", "center_momentum"):
            self._check(name, 0 <= getattr(self, name) < 1, "must be at least 0 and below 1")
        self._check("koleo_group", self.koleo_group >= 2, "must be at least 2: a row needs a neighbour")
        self._check("chunk_rows", self.chunk_rows >= 1, "must be at least 1")


@dataclass(frozen=True, kw_only=True)
class GroundOptions(_Checked):
    """Region-text loss."""

    weight: float = 1.0
    """Weight in the total."""
    duplicates: Literal["ignore", "negative", "positive"] = "ignore"
    """What another region with the same name is; `negative` is the paper's Eq. 1 to the letter."""
    ignore_cos: float | None = None
    """Leave out negatives whose name has a larger text cosine to the own one; None: compare strings only."""
    unique_text: bool = True
    """Encode every name of the global batch once; equal to encoding every slot."""


@dataclass(frozen=True, kw_only=True)
class DepthOptions(_Checked):
    """Depth loss."""

    weight: float = 1.0
    """Weight in the total."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """Of the depth head; the loss is float32 always."""
    gm_space: Literal["normalised", "ls"] = "normalised"
    """Where gradients are matched: between the normalised maps, or in label units after a least-squares fit."""


@dataclass(frozen=True, kw_only=True)
class OptimOptions(_Checked):
    """AdamW, its schedule, and the batch."""

    lr: float = 5e-4
    """Peak learning rate."""
    warmup: int = 1000
    """Steps of linear warm-up."""
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    """After warm-up, to 0 at the last step."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Of AdamW."""
    eps: float = 1e-6
    """Of AdamW."""
    weight_decay: float = 0.0
    """Of every parameter."""
    clip_norm: float | None = 1.0
    """Largest norm of the gradient of all parameters; None: no limit."""
    global_batch: int = 4096
    """Images of an optimiser step over all processes."""
    accumulate: int = 1
    """Micro-batches per step."""
    accum: Literal["local", "cached"] = "local"
    """`local`: negatives within a micro-batch; `cached`: contrastive losses over the whole batch, by a second pass."""
    skip_limit: int = 3
    """Steps with a loss or gradient that is not finite that may follow one another before the run ends."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("global_batch", "accumulate", "skip_limit"):
            self._check(name, getattr(self, name) >= 1, "must be at least 1")
        for name in ("lr", "eps"):
            self._check(name, getattr(self, name) > 0, "must be positive")
        for name in ("warmup", "weight_decay"):
            self._check(name, getattr(self, name) >= 0, "must not be negative")
        self._check("betas", all(0 <= b < 1 for b in self.betas), "must be at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class PerfOptions(_Checked):
    """Speed and memory; nothing here changes what is learnt beyond rounding."""

    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of the towers and of the MLPs of the heads; auto: bf16 on a GPU and on a CPU with matrix units, else fp32."""
    compile: bool = False
    """Compile the blocks of the towers."""
    checkpoint_blocks: bool = False
    """Recompute the blocks in the backward pass instead of keeping their activations."""
    fuse_views: bool = True
    """One call of the student for the plain and the masked global view."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """With several processes: replicas, or sharded parameters."""
    threads: int | None = None
    """CPU threads of torch per process; None: torch's choice."""


@dataclass(frozen=True, kw_only=True)
class LogOptions(_Checked):
    """What is written about a run while it goes on."""

    every: int = 20
    """Steps between log lines."""
    gradients_every: int = 0
    """Steps between measurements of the objectives' gradients on the trunk (norms, cosines); 0: never."""
    trackers: tuple[str, ...] = ()
    """`tensorboard`, `wandb`, beside `log.jsonl`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("every", self.every >= 1, "must be at least 1")
        self._check("gradients_every", self.gradients_every >= 0, "must not be negative")
        unknown = set(self.trackers) - {"tensorboard", "wandb"}
        self._check("trackers", not unknown, "may hold tensorboard and wandb")


@dataclass(frozen=True, kw_only=True)
class SaveOptions(_Checked):
    """Checkpoints."""

    every: int = 2000
    """Steps between checkpoints; the last step is always saved."""
    keep: int = 3
    """Newest checkpoints that stay."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("every", "keep"):
            self._check(name, getattr(self, name) >= 1, "must be at least 1")


@dataclass(frozen=True, kw_only=True)
class EvalOptions(_Checked):
    """Small evaluations while the run goes on, through `mtv.eval.evaluate`."""

    every: int = 0
    """Steps between evaluations; 0: none."""
    tasks: tuple[str, ...] = ("imagenet/mini", "nyuv2/mini")
    """Tasks with presets, as `mtv-eval run -t` takes them."""
    data: str | None = None
    """Root of the benchmarks; None: the folder of the training data."""
    limit: int | None = None
    """Pictures per task at most; None: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("every", self.every >= 0, "must not be negative")


def plain(value: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value
