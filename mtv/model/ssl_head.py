"""The self-supervised head: MLP to a normalised bottleneck, then weight-normed prototypes (section 4.2).

Losses work from `bottleneck` and `prototypes` and never keep all logits alive; `forward` is the literal form. GELU is
exact here. The gains of the weight norm start at 1 and are trained; the EMA of a teacher acts on gain and direction.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from mtv.model.blocks import widen, without_autocast
from mtv.model.config import SslConfig

NORM_EPS = 1e-12


class SslHead(nn.Module):
    """One head; DINO and iBOT have one each.

    Args:
        width: channels D of the features that enter.
        config: sizes.
    """

    def __init__(self, width: int, config: SslConfig) -> None:
        super().__init__()
        self.config = config
        self.fc1 = nn.Linear(width, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.hidden)
        self.fc3 = nn.Linear(config.hidden, config.bottleneck)
        # The parametrisation, not the older hook, whose plain-tensor weight breaks deep copies (the teacher is one).
        self.last = weight_norm(nn.Linear(config.bottleneck, config.prototypes, bias=False), dim=0)

    def bottleneck(self, x: Tensor) -> Tensor:
        """Features of any leading shape, D channels, to C channels, L2-normalised, float32."""
        y = self.fc3(F.gelu(self.fc2(F.gelu(self.fc1(x)))))
        with without_autocast(y):
            return F.normalize(widen(y), dim=-1, eps=NORM_EPS)

    def prototypes(self) -> Tensor:
        """W_KC in float32: rows are direction times gain."""
        with without_autocast(self.fc1.weight):
            weight_KC: Tensor = self.last.weight
        return weight_KC

    def forward(self, x: Tensor) -> Tensor:
        """Logits over the prototypes, float32; the literal form."""
        z = self.bottleneck(x)
        with without_autocast(x):
            return F.linear(z, self.prototypes())
