"""Floating-point operations of a training step, counted on tensors without memory, and what a GPU could do.

Notable choices: a multiply-add is two operations; forward and backward, so that a pass with gradients counts about
three times; recomputation is not counted (it is no progress). `executed` is what the exact rewrites leave
(trainer_performance.md section 3), `literal` what the paper's formulation would compute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mtv.model.model import MtvModel, teacher
from mtv.train.recipe import Recipe

PEAK_BF16 = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
}
"""Part of a device name to dense bf16 operations per second by its data sheet; the first match counts."""


def peak_of(device: torch.device, *, bf16: bool) -> float | None:
    """Peak operations per second of a device; None where it is unknown, and for float32, whose peak is another."""
    if device.type != "cuda" or not bf16:
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_BF16.items() if part in name), None)


_OWNER = {
    "captions": "vl",
    **dict.fromkeys(("locals", "masked", "teacher", "teacher_heads", "dino_head", "ibot_head"), "ssl"),
    **dict.fromkeys(("region_text", "prompter", "prompter_literal"), "ground"),
    "dpt": "depth",
}
"""Pass or head to the objective that it is for; the rest serves all."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Operations per image."""

    parts: dict[str, float]
    """Pass or head to its operations; those of text are per text."""
    regions: int
    """Region slots per image."""

    def only(self, tasks: tuple[str, ...]) -> Work:
        """Without the passes of other objectives."""
        return replace(self, parts={k: v for k, v in self.parts.items() if _OWNER.get(k, tasks[0]) in tasks})

    def executed(self, names: float) -> float:
        """With the exact rewrites.

        Args:
            names: region names that are encoded per image; with unique names less than the slots.
        """
        once = {k: v for k, v in self.parts.items() if k not in ("region_text", "prompter_literal")}
        return sum(once.values()) + names * self.parts.get("region_text", 0.0)

    def literal(self) -> float:
        """Every region slot with its own text and its own pass of the Prompter."""
        left_out = self.parts.get("prompter", 0.0) - self.parts.get("prompter_literal", 0.0)
        return self.executed(self.regions) - left_out


def count_work(recipe: Recipe) -> Work:
    """Operations per image of every pass of a recipe; takes about a second."""
    with torch.device("meta"):
        model = MtvModel(recipe.model, recipe.objectives, recipe.heads, recipe.prompter)
        passes: dict[str, float] = {}
        pooled = bool(recipe.objectives & {"vl", "ssl"})
        side, patches, width = recipe.model.vision.image_size, recipe.model.vision.patches, recipe.model.vision.width
        view = torch.zeros(1, 3, side, side)
        tokens = torch.zeros(1, patches, width, requires_grad=True)
        passes["global"] = _counted(lambda: _used(model.vision(view, pool=pooled), pooled))
        if model.text is not None:
            text, ids = model.text, torch.zeros(1, recipe.model.text.positions, dtype=torch.int64)
            one = _counted(lambda: text(ids))
            passes |= {"captions": one} if "vl" in recipe.tasks else {}
            passes |= {"region_text": one} if "ground" in recipe.tasks else {}
        if "ssl" in recipe.tasks:
            passes |= _self_supervised(recipe, model, view)
        if model.prompter is not None:
            passes |= _grounding(recipe, model, tokens)
        if model.dpt is not None:
            dpt, grid = model.dpt, (recipe.model.vision.grid,) * 2
            passes["dpt"] = _counted(lambda: dpt([tokens] * 4, grid, (side, side)))
    return Work(parts=passes, regions=recipe.views.regions)


def _self_supervised(recipe: Recipe, model: MtvModel, view: Tensor) -> dict[str, float]:
    follower = teacher(model)
    dino, ibot = model.dino_head, model.ibot_head
    assert dino is not None
    assert ibot is not None
    crops, small, width = recipe.views.local_crops, recipe.views.local_size, recipe.model.vision.width
    patches = recipe.model.vision.patches
    rows = int(recipe.views.mask_ratio * patches)
    local = torch.zeros(crops, 3, small, small)
    masked_rows, local_rows = (torch.zeros(n, width, requires_grad=True) for n in (rows, crops))
    mask = torch.zeros(1, patches, dtype=torch.bool)
    with torch.no_grad():
        seen = _counted(lambda: follower.vision(view).tokens_BND, backward=False)
        heads = _counted(lambda: follower.ibot_head(masked_rows.detach()), backward=False)
        heads += _counted(lambda: follower.dino_head(local_rows.detach()[:1]), backward=False)
    return {
        "locals": _counted(lambda: _used(model.vision(local), True)),
        "masked": _counted(lambda: model.vision(view, mask_BN=mask, pool=False).tokens_BND),
        "teacher": seen,
        "teacher_heads": heads,
        "dino_head": _counted(lambda: dino(local_rows)),
        "ibot_head": _counted(lambda: ibot(masked_rows)),
    }


def _grounding(recipe: Recipe, model: MtvModel, tokens: Tensor) -> dict[str, float]:
    prompter, regions = model.prompter, recipe.views.regions
    assert prompter is not None
    boxes = torch.zeros(1, regions, 4)
    extra = 1 if recipe.prompter.conditioning == "query" else 2
    rows = torch.zeros(regions, tokens.shape[1] + extra, tokens.shape[2], requires_grad=True)
    return {
        "prompter": _counted(lambda: prompter(tokens, boxes)),
        "prompter_literal": _counted(lambda: prompter.layer(rows)),
    }


def _used(output: object, pooled: bool) -> Tensor:
    value = getattr(output, "pooled_BD" if pooled else "tokens_BND")
    assert isinstance(value, Tensor)
    return value


def _counted(work: Callable[[], Tensor], *, backward: bool = True) -> float:
    with FlopCounterMode(display=False) as counter:
        out = work()
        if backward:
            out.sum().backward()
    return float(counter.get_total_flops())
