"""What an objective is: the views and labels it needs, and its loss from them.

The learner runs the passes of the union of all needs once, hands the views to every objective, and adds up; nothing in
the loop asks which objectives are active. Contrastive objectives split their loss in two, embeddings and contrast,
so that accumulation can contrast the embeddings of a whole batch (`accum=cached`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar

from torch import Tensor

from mtv.model.model import MtvModel, VisionOutput
from mtv.train.data.batch import Batch, Needs


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Encoder passes beside the plain global view, which is always there (pretraining.md section 3)."""

    pooled: bool = False
    """Pooled vector of the global view."""
    taps: tuple[int, ...] = ()
    """Blocks of the global view, 1-based."""
    masked: bool = False
    """Student on the masked global view."""
    locals: bool = False
    """Student on the local views, pooled."""
    teacher: bool = False
    """Teacher on the global view, pooled and tokens."""
    captions: bool = False
    """Text tower on the captions."""

    def __or__(self, other: Passes) -> Passes:
        """What either asks for."""
        return Passes(
            taps=tuple(sorted({*self.taps, *other.taps})),
            **{f.name: getattr(self, f.name) or getattr(other, f.name) for f in fields(Passes) if f.name != "taps"},
        )


@dataclass(frozen=True, kw_only=True)
class Views:
    """Outputs of the passes of one micro-batch; None where no objective asked."""

    image: VisionOutput
    """Student on the plain global view (P1)."""
    masked_BND: Tensor | None = None
    """Student's z* on the masked global view (P2), before the post LayerNorm."""
    local_BMD: Tensor | None = None
    """Student's pooled local views (P3)."""
    teacher: VisionOutput | None = None
    """Teacher on the global view (P4), without gradient."""
    caption_BD: Tensor | None = None
    """Captions (P5), not normalised."""

    @property
    def pooled_BD(self) -> Tensor:
        """Pooled vector of the plain global view."""
        assert self.image.pooled_BD is not None
        return self.image.pooled_BD


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a loss may depend on beside views and labels."""

    step: int
    """Optimiser steps done before this one."""
    tau_t: float
    """Temperature of the teacher."""
    depth_share: float = 1.0
    """Valid depth maps of this micro-batch over the mean of the step's micro-batches, over all ranks."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Loss of one objective on one micro-batch."""

    loss: Tensor
    """Weighted scalar, with gradient."""
    values: dict[str, Tensor]
    """What to log, detached scalars."""


class Objective(ABC):
    """One objective. Its modules belong to the model; it holds options only."""

    name: ClassVar[str]
    needs: Needs
    """Views and labels of the data."""
    passes: Passes
    """Encoder passes."""

    @abstractmethod
    def outcome(self, model: MtvModel, views: Views, batch: Batch, context: Context) -> Outcome:
        """The loss in its per-rank form."""


class Contrastive(Objective):
    """An objective whose loss compares every sample of the global batch with every other."""

    @abstractmethod
    def embed(self, model: MtvModel, views: Views, batch: Batch) -> dict[str, Tensor]:
        """What is contrasted; rows of each tensor belong to the samples of the micro-batch."""

    @abstractmethod
    def labels(self, batch: Batch) -> dict[str, Tensor]:
        """Tensors without gradient that the contrast needs, rows as in `embed`."""

    @abstractmethod
    def contrast(
        self, embedded: dict[str, Tensor], labels: dict[str, Tensor], log_scale: Tensor, bias: Tensor
    ) -> Outcome:
        """The loss from embeddings of any number of samples."""

    @abstractmethod
    def scale(self, model: MtvModel) -> tuple[Tensor, Tensor]:
        """Its log-scale and bias."""
