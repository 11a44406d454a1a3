"""`optimizer.safetensors`: AdamW's moments and step counters by the name of the parameter.

By name and not by position: the order of parameters is an accident of how a model is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mtv.encoders.checkpoint import read_state_dict
from mtv.errors import CheckpointError
from mtv.train.learner import Learner
from mtv.train.whole import put

MOMENTS = ("exp_avg", "exp_avg_sq")
COUNTER = "step"


def optimizer_state(learner: Learner, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`<parameter>.<exp_avg | exp_avg_sq | step>` to this rank's tensor; empty before the first step."""
    return {
        f"{name}.{key}": optimizer.state[parameter][key]
        for name, parameter in _trained(learner).items()
        if parameter in optimizer.state
        for key in (*MOMENTS, COUNTER)
    }


def read_optimizer(path: Path, learner: Learner) -> dict[str, Tensor]:
    """Whole tensors of the file, checked against the parameters of the learner.

    Raises:
        CheckpointError: missing or damaged file, other parameters, other shapes.
    """
    state = read_state_dict(path)
    shapes = {f"{n}.{k}": p.shape for n, p in _trained(learner).items() for k in MOMENTS}
    shapes |= {f"{n}.{COUNTER}": torch.Size() for n in _trained(learner)}
    wrong = sorted(state.keys() ^ shapes.keys()) or [n for n, t in state.items() if t.shape != shapes[n]]
    if state and wrong:
        raise CheckpointError(f"{path} belongs to other parameters: {', '.join(wrong[:4])} ({len(wrong)} in all)")
    return state


def load_optimizer(state: Mapping[str, Tensor], learner: Learner, optimizer: torch.optim.Optimizer) -> None:
    """Replace the state of the optimizer by what `read_optimizer` gave; each rank takes its part."""
    optimizer.state.clear()
    if not state:
        return
    fused = bool(optimizer.param_groups[0]["fused"])
    for name, parameter in _trained(learner).items():
        own = {key: torch.zeros_like(parameter, requires_grad=False) for key in MOMENTS}
        for key, moment in own.items():
            put(moment, state[f"{name}.{key}"])
        # The fused form counts on the device, the others on the CPU.
        counter = state[f"{name}.{COUNTER}"].to(parameter.device if fused else "cpu", torch.float32, copy=True)
        optimizer.state[parameter] = {COUNTER: counter, **own}


def _trained(learner: Learner) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in learner.model.named_parameters() if p.requires_grad}
