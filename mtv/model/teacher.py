"""The EMA teacher: image tower and both self-supervised heads, never trained, always float32 (section 6).

It starts as an exact copy of the student. In bf16 an update of 0.6 % of a small difference would be rounded away.
Text tower, Prompter, depth head and mask token have no teacher: it sees whole pictures only.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mtv.errors import UsageError

if TYPE_CHECKING:
    from mtv.model.model import MtvModel


class Teacher(nn.Module):
    """A frozen copy of `vision`, `dino_head` and `ibot_head` that follows the student."""

    def __init__(self, model: MtvModel) -> None:
        super().__init__()
        if model.dino_head is None or model.ibot_head is None:
            raise UsageError("a teacher needs the heads of the ssl objective")
        # Its own memory, so that the exact start does not follow the student's steps.
        self.vision = copy.deepcopy(model.vision)
        self.vision.mask_token = None
        self.dino_head = copy.deepcopy(model.dino_head)
        self.ibot_head = copy.deepcopy(model.ibot_head)
        self.requires_grad_(False)
        self.eval()
        other = next((n for n, p in self.named_parameters() if p.dtype != torch.float32), None)
        if other is not None:
            raise UsageError(f"teacher: {other} is not float32")

    @torch.no_grad()
    def update_(self, model: MtvModel, momentum: float) -> None:
        """theta_t <- momentum theta_t + (1 - momentum) theta_s, in place, once per optimizer step.

        Args:
            model: the student, without a wrapper around it.
            momentum: 0.994 in the paper.
        """
        student: dict[str, Tensor] = dict(model.named_parameters())
        names, own = zip(*self.named_parameters(), strict=True)
        torch._foreach_lerp_(list(own), [student[name] for name in names], 1.0 - momentum)


def teacher(model: MtvModel) -> Teacher:
    """The teacher of `model` at step 0: bit-equal to it, without gradients.

    Raises:
        UsageError: the model was built without the ssl objective, or is not float32.
    """
    return Teacher(model)
