"""Region-text loss: the sigmoid loss between regions and their names (objective Ground of pretraining.md 5.5).

Notable choices:
- Columns are the valid regions of the whole world; invalid slots never count, whatever they contain.
- The same name on another region is left out of the negatives by default: names are single tags, so exact repeats are
  false negatives. Names are compared as strings (hashes), since text cosines are 0.96 on a fresh network.
- `unique_region_loss` computes the same number from U distinct names with multiplicities
  (trainer_performance.md 3.2); `region_loss` is the literal matrix over all slots.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mtv.collectives import gather_rows, rank, world_size
from mtv.errors import unknown
from mtv.losses.names import UniqueNames
from mtv.losses.precision import in_full_precision, unit
from mtv.losses.sigmoid import contrastive_logits

DUPLICATES = ("ignore", "negative", "positive")


@dataclass(frozen=True, kw_only=True)
class RegionReport:
    """What to log about the regions of a step, over all ranks, on the device."""

    regions: Tensor
    """Number of valid regions in the global batch."""
    share: Tensor
    """Share of valid slots in the global batch."""


@in_full_precision
def region_loss(
    u_BRD: Tensor,
    t_BRD: Tensor,
    name_BR: Tensor,
    valid_BR: Tensor,
    log_scale: Tensor,
    bias: Tensor,
    *,
    duplicates: str = "ignore",
    ignore_cos: float | None = None,
) -> tuple[Tensor, RegionReport]:
    """Literal form: every local region against every region of the world.

    Args:
        u_BRD: region embeddings, any length (normalised here); contents of invalid slots do not matter.
        t_BRD: embeddings of the names of the same slots.
        name_BR: int64 hashes of the names.
        valid_BR: True where a slot holds a region.
        log_scale: shape [1].
        bias: shape [1].
        duplicates: `ground.duplicates`: what another region with the same name is.
        ignore_cos: `ground.ignore_cos`: leave out negatives whose name has a larger text cosine to the own name.

    Returns:
        Scalar whose plain average over ranks is the mean over valid regions of the global batch (0 without any); and
        the report.

    Raises:
        UsageError: unknown `duplicates`.
    """
    _check(duplicates)
    row_valid_S = valid_BR.flatten()
    text_SD = unit(_slots(t_BRD, valid_BR))
    text_CD, name_C = gather_rows(text_SD), gather_rows(name_BR.flatten())
    valid_C = gather_rows(row_valid_S.long()).bool()
    logits_SC = contrastive_logits(unit(_slots(u_BRD, valid_BR)), text_CD, log_scale, bias)
    positive_SC = torch.zeros_like(logits_SC, dtype=torch.bool)
    positive_SC.diagonal(rank() * len(text_SD)).fill_(True)
    same_SC = name_BR.flatten().unsqueeze(1) == name_C
    dropped_SC = _too_similar(text_SD, text_CD, ignore_cos)
    if duplicates == "positive":
        positive_SC |= same_SC
    elif duplicates == "ignore" or ignore_cos is not None:  # equal texts have cosine 1
        dropped_SC = dropped_SC | same_SC
    counted_SC = row_valid_S.unsqueeze(1) & valid_C & (positive_SC | ~dropped_SC)
    terms_SC = F.softplus(torch.where(positive_SC, -logits_SC, logits_SC))
    return _mean(terms_SC.masked_fill(~counted_SC, 0).sum(), valid_C.sum(), len(valid_C))


@in_full_precision
def unique_region_loss(
    u_BRD: Tensor,
    t_LD: Tensor,
    names: UniqueNames,
    valid_BR: Tensor,
    log_scale: Tensor,
    bias: Tensor,
    *,
    duplicates: str = "ignore",
    ignore_cos: float | None = None,
) -> tuple[Tensor, RegionReport]:
    """The same loss from the distinct names: each column stands for as many regions as show its name.

    Args:
        u_BRD: region embeddings, any length; contents of invalid slots do not matter.
        t_LD: embeddings of this rank's share of the names: the texts of `names.local_slots`.
        names: from `unique_names` of the same slots.
        valid_BR: True where a slot holds a region.
        log_scale: shape [1].
        bias: shape [1].
        duplicates: as in `region_loss`.
        ignore_cos: as in `region_loss`.

    Returns:
        As `region_loss`.

    Raises:
        UsageError: unknown `duplicates`.
    """
    _check(duplicates)
    row_valid_S, own_S = valid_BR.flatten(), names.own_BR.flatten()
    text_VD = gather_rows(unit(t_LD))
    logits_SV = contrastive_logits(unit(_slots(u_BRD, valid_BR)), text_VD, log_scale, bias)
    own_logit_S = logits_SV[torch.arange(len(own_S), device=own_S.device), own_S]
    # -inf makes the softplus and its gradient exactly 0. Subtracting the own column afterwards would cancel.
    logits_SV.scatter_(1, own_S.unsqueeze(1), -torch.inf)
    if ignore_cos is not None:
        logits_SV = logits_SV.masked_fill(_too_similar(text_VD[own_S], text_VD, ignore_cos), -torch.inf)
    counts_V = names.counts_V.to(logits_SV)
    rows_S = F.softplus(logits_SV) @ counts_V + F.softplus(-own_logit_S)
    others_S = counts_V[own_S] - 1
    if duplicates == "positive":
        rows_S = rows_S + others_S * F.softplus(-own_logit_S)
    elif duplicates == "negative" and ignore_cos is None:
        rows_S = rows_S + others_S * F.softplus(own_logit_S)
    slots = len(row_valid_S) * world_size()
    return _mean(rows_S.masked_fill(~row_valid_S, 0).sum(), names.counts_V.sum(), slots)


def _slots(x_BRD: Tensor, valid_BR: Tensor) -> Tensor:
    """[B * R, D] with zeros in invalid slots: their contents reach neither the loss nor any gradient."""
    return x_BRD.masked_fill(~valid_BR.unsqueeze(-1), 0).flatten(0, 1)


def _too_similar(text_SD: Tensor, text_CD: Tensor, ignore_cos: float | None) -> Tensor:
    """True where two unit rows have a cosine above `ignore_cos`; all False without a limit."""
    if ignore_cos is None:
        return torch.zeros((), dtype=torch.bool, device=text_SD.device)
    return text_SD.detach() @ text_CD.detach().T > ignore_cos


def _mean(total: Tensor, regions: Tensor, slots: int) -> tuple[Tensor, RegionReport]:
    return total * world_size() / regions.clamp(min=1), RegionReport(regions=regions, share=regions / slots)


def _check(duplicates: str) -> None:
    if duplicates not in DUPLICATES:
        raise unknown("ground.duplicates", duplicates, DUPLICATES)
