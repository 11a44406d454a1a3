"""What a run would do: per model and task what is stored, which passes are missing, and how long they may take."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtv.console import duration

if TYPE_CHECKING:
    from mtv.encoders.base import Encoder
    from mtv.eval.features.api import FeatureProvider
    from mtv.eval.features.request import FeatureRequest


WORTH_TIMING = 500
"""Missing pictures from which a few timed passes cost next to nothing."""


@dataclass(frozen=True, kw_only=True)
class TaskPlan:
    """One line of the plan."""

    model: str
    """What tables call the model."""
    protocol: str
    """Protocol id."""
    data: str
    """Data set with its label."""
    state: str
    """`done`, `run` or `skip: <reason>`."""
    images: int = 0
    """Forward passes the task needs."""
    cached: int = 0
    """Of these, how many the feature cache holds."""
    store_mb: float = 0.0
    """Megabytes that will be added to the cache."""
    seconds: float | None = None
    """Estimated time of the missing forward passes on this machine; None where nothing is missing."""

    def line(self) -> str:
        """One line for the log."""
        head = f"{self.model}  {self.protocol}  {self.data}: {self.state}"
        if self.state != "run" or not self.images:
            return head
        eta = f", about {duration(self.seconds)}" if self.seconds is not None else ""
        return f"{head}, {self.images} images, {self.cached} cached, {self.store_mb:.0f} MB to store{eta}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return dict(self.__dict__)


def seconds_per_image(encoder: Encoder, request: FeatureRequest, *, batch: int = 4) -> float:
    """Time of one image of this request on this machine: one warm-up pass, then one timed batch of real size.

    The picture is the first of the request, so that decoding and the true input size are part of it.
    """
    import torch

    from mtv.encoders.base import Encoder as Base
    from mtv.probes.resample import pad_to_patch

    first = request.ids[0]
    start = time.perf_counter()
    pixels_3HW = request.preparation(first, [f.read() for f in request.files[first]])
    decode = time.perf_counter() - start
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[request.tower_dtype]
    images = torch.zeros(batch, 3, *pixels_3HW.shape[1:], dtype=dtype, device=encoder.device)
    images = pad_to_patch(images, encoder.patch_size) if request.pad_to_patch else images

    def forward(x: torch.Tensor) -> None:
        Base.features(
            encoder, x, layers=request.layers, norm=request.norm, pooled=request.pooled or request.global_token
        )
        if x.is_cuda:
            torch.cuda.synchronize(x.device)

    forward(images[:1])
    start = time.perf_counter()
    forward(images)
    return max(decode, (time.perf_counter() - start) / batch)


def plan_features(
    encoder: Encoder, provider: FeatureProvider, requests: list[FeatureRequest], *, estimate: bool
) -> dict[str, Any]:
    """Counts and, where passes are missing, the time they may take: always for long runs, else with `estimate` set."""
    images = cached = 0
    store = seconds = 0.0
    for request in requests:
        plan = provider.plan(request)
        images += plan.total
        cached += plan.cached
        store += plan.bytes_to_store / 1e6
        missing = plan.total - plan.cached
        if missing and (estimate or missing >= WORTH_TIMING):
            seconds += missing * seconds_per_image(encoder, request)
    return {
        "images": images,
        "cached": cached,
        "store_mb": store,
        "seconds": seconds or None,
    }
