"""KoLeo regulariser: spreads the pooled features of a group of images (arXiv 1806.03198, as DINOv2 uses it).

Notable choices:
- Groups of fixed size in batch order, so that the value does not depend on the number of ranks.
- The epsilon inside the norm gives duplicates a large but finite gradient; a plain root at distance 0 gives NaN.
"""

from __future__ import annotations

import functools
import logging

import torch
from torch import Tensor

from mtv.errors import UsageError
from mtv.losses.precision import in_full_precision, unit

EPSILON = 1e-8
log = logging.getLogger(__name__)


@in_full_precision
def koleo_loss(x_BD: Tensor, group: int) -> Tensor:
    """Minus the mean log distance of each unit row to its nearest neighbour in its group.

    Args:
        x_BD: pooled student features of the unmasked view, before any head; any length.
        group: rows per group (`ssl.koleo_group`), consecutive in the batch. A batch that is no multiple of it is one
            group, with a warning.

    Returns:
        Scalar mean over this rank's rows.

    Raises:
        UsageError: a group would have fewer than 2 rows.
    """
    x_BD = unit(x_BD)
    x_ngD = x_BD.unflatten(0, (-1, group_size(len(x_BD), group)))
    with torch.no_grad():
        cosine_ngg = x_ngD @ x_ngD.mT
        cosine_ngg.diagonal(dim1=1, dim2=2).fill_(-2.0)
        nearest_ng = cosine_ngg.argmax(-1)
    neighbour_ngD = x_ngD.gather(1, nearest_ng.unsqueeze(-1).expand_as(x_ngD))
    distance_ng = (x_ngD - neighbour_ngD + EPSILON).norm(dim=-1)
    return -(distance_ng + EPSILON).log().mean()


def group_size(rows: int, group: int) -> int:
    """Rows per group for a local batch of `rows`: `group` where it divides the batch, else the whole batch.

    Raises:
        UsageError: fewer than 2 rows in the batch or in `group`: a row would have no neighbour.
    """
    if rows < 2 or group < 2:
        raise UsageError(
            f"KoLeo needs at least 2 images per group, got a local batch of {rows} with ssl.koleo_group={group}",
            "Use a larger batch, fewer processes, fewer accumulation steps, or train without ssl.",
        )
    if rows % group == 0:
        return group
    _warn_about_group(rows, group)
    return rows


@functools.cache
def _warn_about_group(rows: int, group: int) -> None:
    log.warning(
        "ssl.koleo_group=%d does not divide the local batch of %d: KoLeo takes the whole local batch as one group, "
        "and its value now depends on the number of processes",
        group,
        rows,
    )
