"""Initial weights: towers as `SiglipModel` draws them, heads as `protocols/pretraining.md` sections 4.1 to 4.4 say.

* Every parameter is NaN before anything is drawn, and none may be NaN afterwards: a forgotten one is an error, not a
  model that trains a little worse.
* Each part draws from a stream of its own, keyed by (seed, part): the image tower of an ablation without depth is
  bit-equal to that of the full model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mtv.hashing import sha256_text
from mtv.model.blocks import AttentionPool, Block, Mlp
from mtv.model.dpt import DptHead
from mtv.model.prompter import Prompter
from mtv.model.ssl_head import SslHead
from mtv.model.text import TextTower
from mtv.model.vision import VisionTower

LOG_SCALE, BIAS = math.log(10.0), -10.0
# Standard deviation of a standard normal cut at two, which flax divides by. transformers does so as well, but cuts at
# +-2 and not at two deviations, so its weights are 14 % wider than flax's; ours follow `SiglipModel`, as specified.
_CUT_STD = 0.87962566103423978


@torch.no_grad()
def initialise(model: nn.Module, seed: int) -> None:
    """Draw all weights of an `MtvModel` in place.

    Raises:
        RuntimeError: a parameter that no rule initialises, named: a bug.
    """
    for parameter in model.parameters():
        parameter.fill_(math.nan)
    for name, child in model.named_children():
        _draw(child, seed, name)
    for name, parameter in model.named_parameters(recurse=False):
        parameter.fill_(LOG_SCALE if name.endswith("log_scale") else BIAS)
    missed = [n for n, p in model.named_parameters() if bool(torch.isnan(p).any())]
    if missed:
        raise RuntimeError(f"parameters that nothing initialises: {', '.join(missed)}")


def _draw(part: nn.Module, seed: int, name: str) -> None:
    rule: Callable[[Any], None] = _RULES[type(part)]
    mask_token = getattr(part, "mask_token", None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(sha256_text(f"{seed} {name}")[:15], 16))
        _draw_on_cpu(part, rule)
        if mask_token is not None:
            torch.manual_seed(int(sha256_text(f"{seed} {name} mask token")[:15], 16))
            mask_token.copy_(nn.init.trunc_normal_(torch.empty(mask_token.shape), std=0.02, a=-0.04, b=0.04))


def _draw_on_cpu(part: nn.Module, rule: Callable[[Any], None]) -> None:
    """Draws of a GPU differ from those of the CPU, so all weights are drawn here and moved."""
    device = next(part.parameters()).device
    if device.type == "cpu":
        rule(part)
        return
    part.to("cpu")
    rule(part)
    part.to(device)


def _vision(tower: VisionTower) -> None:
    _lecun(tower.patch_weight)
    tower.patch_bias.zero_()
    tower.positions.normal_(std=tower.config.width**-0.5)
    for block in tower.blocks:
        init_block(block)
    _norm(tower.norm)
    _pool(tower.pool)


def _text(tower: TextTower) -> None:
    tower.tokens.normal_(std=tower.config.width**-0.5)
    tower.positions.normal_(std=tower.config.width**-0.5)
    for block in tower.blocks:
        init_block(block)
    _norm(tower.norm)
    _lecun(tower.head.weight)
    tower.head.bias.zero_()


def init_block(block: Any) -> None:
    """One encoder layer as `SiglipModel` initialises it; q, k and v each by its own fan."""
    _norm(block.norm1)
    for part in block.qkv.weight.chunk(3):
        nn.init.xavier_uniform_(part)
    block.qkv.bias.zero_()
    nn.init.xavier_uniform_(block.proj.weight)
    block.proj.bias.zero_()
    _norm(block.norm2)
    _mlp(block.mlp)


def _pool(pool: AttentionPool) -> None:
    nn.init.xavier_uniform_(pool.probe)
    # Fused here, because torch's MultiheadAttention, which SigLIP pools with, is.
    nn.init.xavier_uniform_(pool.qkv.weight)
    pool.qkv.bias.zero_()
    _lecun(pool.proj.weight)
    pool.proj.bias.zero_()
    _norm(pool.norm)
    _mlp(pool.mlp)


def _ssl_head(head: SslHead) -> None:
    for linear in (head.fc1, head.fc2, head.fc3):
        nn.init.trunc_normal_(linear.weight, std=0.02, a=-0.04, b=0.04)
        linear.bias.zero_()
    gain_K1, direction_KC = head.last.parametrizations.weight.original0, head.last.parametrizations.weight.original1
    gain_K1.fill_(1.0)
    nn.init.trunc_normal_(direction_KC, std=0.02, a=-0.04, b=0.04)


def _prompter(prompter: Prompter) -> None:
    prompter.query.normal_(std=0.02)
    init_block(prompter.layer)


def _dpt(head: DptHead) -> None:
    for module in head.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.LayerNorm)):
            module.reset_parameters()


def _mlp(mlp: Mlp) -> None:
    for linear in (mlp.fc1, mlp.fc2):
        nn.init.xavier_uniform_(linear.weight)
        linear.bias.normal_(std=1e-6)


def _norm(norm: nn.LayerNorm) -> None:
    norm.weight.fill_(1.0)
    norm.bias.zero_()


def _lecun(weight: Tensor) -> None:
    nn.init.trunc_normal_(weight, std=math.prod(weight.shape[1:]) ** -0.5 / _CUT_STD)


_RULES: dict[type[nn.Module], Callable[[Any], None]] = {
    VisionTower: _vision,
    TextTower: _text,
    SslHead: _ssl_head,
    Prompter: _prompter,
    DptHead: _dpt,
    Block: init_block,
}
