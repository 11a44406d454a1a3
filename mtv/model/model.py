"""The MTV model: towers, and the heads of the objectives that are active (`protocols/pretraining.md` section 4).

* An inactive objective builds no module. Parts of the towers that no active objective reads (the pooling of a run with
  depth alone, say) keep their initial weights without gradients, so that every trainable parameter gets one.
* Modules are built without memory and then drawn once (`mtv.model.init`): nothing is initialised twice, and building
  under `torch.device("meta")` counts parameters of any size in no time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mtv.model.blocks import widen
from mtv.model.config import ModelSize, PrompterConfig, SslConfig, check_objectives
from mtv.model.dpt import DepthPrecision, DptHead, depth_autocast
from mtv.model.init import initialise
from mtv.model.prompter import Prompter
from mtv.model.ssl_head import SslHead
from mtv.model.teacher import Teacher, teacher
from mtv.model.text import TextTower
from mtv.model.vision import VisionOutput, VisionTower

__all__ = ["MtvModel", "Teacher", "VisionOutput", "parameter_counts", "teacher"]


class MtvModel(nn.Module):
    """Towers and heads as attributes; the objectives call them.

    Args:
        size: towers and depth head.
        objectives: any of `vl`, `ssl`, `ground`, `depth`, at least one.
        ssl: sizes of the self-supervised heads.
        prompter: the grounding layer.
        seed: of the initial weights.
    """

    vision: VisionTower
    """Image tower; with a mask token when ssl is active."""
    text: TextTower | None
    """Text tower; None when neither vl nor ground is active."""
    log_scale: nn.Parameter | None
    """[1], ln 10 at start; with the text tower."""
    bias: nn.Parameter | None
    """[1], -10 at start; with the text tower."""
    ground_log_scale: nn.Parameter | None
    """[1]; with `prompter.own_scale`."""
    ground_bias: nn.Parameter | None
    """[1]; with `prompter.own_scale`."""
    dino_head: SslHead | None
    """Head on pooled vectors; with ssl."""
    ibot_head: SslHead | None
    """Head on masked tokens; with ssl."""
    prompter: Prompter | None
    """Region embeddings; with ground."""
    dpt: DptHead | None
    """Depth head; with depth."""

    def __init__(
        self,
        size: ModelSize,
        objectives: frozenset[str],
        ssl: SslConfig | None = None,
        prompter: PrompterConfig | None = None,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_objectives(frozenset(objectives))
        self.size = size
        self.objectives = frozenset(objectives)
        self.ssl_config = ssl or SslConfig()
        self.prompter_config = prompter or PrompterConfig()
        device = torch.get_default_device()
        with torch.device("meta"):
            self._build()
        if device.type != "meta":
            self.to_empty(device=device)
            initialise(self, seed)
        self._freeze_unread()

    def _build(self) -> None:
        size, active = self.size, self.objectives
        width, mlp_width = size.vision.width, size.vision.mlp_width
        texts, regions = bool(active & {"vl", "ground"}), "ground" in active
        own = regions and self.prompter_config.own_scale
        self.vision = VisionTower(size.vision, mask_token="ssl" in active)
        self.text = TextTower(size.text) if texts else None
        self.log_scale, self.bias = (nn.Parameter(torch.empty(1)) if texts else None for _ in range(2))
        self.ground_log_scale, self.ground_bias = (nn.Parameter(torch.empty(1)) if own else None for _ in range(2))
        self.dino_head = SslHead(width, self.ssl_config) if "ssl" in active else None
        self.ibot_head = SslHead(width, self.ssl_config) if "ssl" in active else None
        self.prompter = Prompter(width, mlp_width, self.prompter_config) if regions else None
        self.dpt = DptHead(width, size.dpt) if "depth" in active else None

    def _freeze_unread(self) -> None:
        pooled = bool(self.objectives & {"vl", "ssl"})
        normed = pooled or ("depth" in self.objectives and self.size.dpt.tap_norm == "final")
        self.vision.pool.requires_grad_(pooled)
        self.vision.norm.requires_grad_(normed)
        if "vl" not in self.objectives and self.ground_log_scale is not None:
            # Regions use their own pair, and nothing else uses the shared one.
            assert self.log_scale is not None
            assert self.bias is not None
            self.log_scale.requires_grad_(False)
            self.bias.requires_grad_(False)

    @torch.no_grad()
    def set_scale(self, scale: float, bias: float) -> None:
        """Other initial values for the pair of the image-text loss, and for that of the regions where they have one."""
        for log_scale in (self.log_scale, self.ground_log_scale):
            if log_scale is not None:
                log_scale.fill_(math.log(scale))
        for shift in (self.bias, self.ground_bias):
            if shift is not None:
                shift.fill_(bias)

    @property
    def region_scale(self) -> tuple[Tensor, Tensor]:
        """Log-scale and bias of the grounding loss: its own pair, or that of the image-text loss."""
        log_scale, bias = self.ground_log_scale, self.ground_bias
        if log_scale is None or bias is None:
            log_scale, bias = self.log_scale, self.bias
        assert log_scale is not None, "ground is not active"
        assert bias is not None
        return log_scale, bias

    def predict_disparity(
        self, output: VisionOutput, out_hw: tuple[int, int], *, precision: DepthPrecision = "fp32"
    ) -> Tensor:
        """Disparity B,H,W, float32, from a pass with `taps=size.dpt.taps`.

        Under `fp32` and `tf32` autocast is off and the taps are cast; with `tap_norm="final"` the tower's post
        LayerNorm belongs to that.
        """
        assert self.dpt is not None, "depth is not active"
        with depth_autocast(precision, output.tokens_BND.device.type):
            taps = [output.taps[t] for t in self.size.dpt.taps]
            taps = taps if precision == "bf16" else [widen(t_BND) for t_BND in taps]
            if self.size.dpt.tap_norm == "final":
                taps = [self.vision.norm(t_BND) for t_BND in taps]
            return self.dpt(taps, output.grid_hw, out_hw)


def parameter_counts(model: MtvModel) -> dict[str, int]:
    """Trainable parameters by part, with their `total` (table 4.5)."""
    mask = model.vision.mask_token
    parts: dict[str, list[nn.Module | nn.Parameter | None]] = {
        "text": [model.text],
        "vision_pool": [model.vision.pool],
        "scale_bias": [model.log_scale, model.bias],
        "ssl": [model.dino_head, model.ibot_head, mask],
        "ground": [model.prompter, model.ground_log_scale, model.ground_bias],
        "depth": [model.dpt],
    }
    counts = {name: sum(_trainable(item) for item in items) for name, items in parts.items()}
    counts["vision_trunk"] = _trainable(model.vision) - counts["vision_pool"] - _trainable(mask)
    return {**counts, "total": _trainable(model)}


def _trainable(item: nn.Module | nn.Parameter | None) -> int:
    if item is None:
        return 0
    parameters = item.parameters() if isinstance(item, nn.Module) else [item]
    return sum(p.numel() for p in parameters if p.requires_grad)
