"""Cases that must give the same loss and gradients on any number of processes, and known wrong forms beside them.

Every case draws the same global batch, takes its rank's share, and returns the loss and gradients **of the global
batch**: losses and gradients of shared parameters averaged over ranks (what DDP does), gradients of local inputs
gathered and divided by the number of ranks. So one process and each of four must return equal tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from mtv.collectives import all_sum, gather_rows, rank, world_size
from mtv.losses.centre import Centre
from mtv.losses.depth import depth_loss, ssi_trim
from mtv.losses.grounding import region_loss, unique_region_loss
from mtv.losses.koleo import koleo_loss
from mtv.losses.masked_prediction import masked_index, masked_prediction_loss, masked_rows
from mtv.losses.names import unique_names
from mtv.losses.self_distillation import self_distillation_loss
from mtv.losses.sigmoid import sigmoid_loss

G, D, E, R, K, C, M, N = 16, 24, 12, 3, 40, 8, 6, 10
Outcome = dict[str, Tensor]


def share(x: Tensor) -> Tensor:
    """This rank's contiguous part of a global batch."""
    return x.unflatten(0, (world_size(), -1))[rank()]


def average(x: Tensor) -> Tensor:
    return all_sum(x) / world_size()


def outcome(loss: Tensor, shared: dict[str, Tensor], local: dict[str, Tensor]) -> Outcome:
    gradients = torch.autograd.grad(loss, [*shared.values(), *local.values()])
    found = {"loss": average(loss)}
    for (name, _), gradient in zip(shared.items(), gradients, strict=False):
        found[f"d {name}"] = average(gradient)
    for (name, _), gradient in zip(local.items(), gradients[len(shared) :], strict=True):
        found[f"d {name}"] = gather_rows(gradient) / world_size()
    return found


class World:
    """The global batch of one type, drawn from one seed on every rank."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.generator = torch.Generator().manual_seed(5)
        # away from the initial bias of -10, where untrained negatives hide every error
        self.pair = {"log_scale": self.leaf(torch.tensor([1.5])), "bias": self.leaf(torch.tensor([-2.0]))}
        self.tower_ED = self.leaf(self.normal(E, D))

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64).to(self.dtype)

    def leaf(self, x: Tensor) -> Tensor:
        return x.detach().clone().to(self.dtype).requires_grad_()


def vl(dtype: torch.dtype, loss: Callable[..., Tensor] = sigmoid_loss) -> Outcome:
    w = World(dtype)
    image_BD, text_BE = w.leaf(share(w.normal(G, D))), share(w.normal(G, E))
    text_BD = (w.tower_ED.T @ text_BE.T).T  # not contiguous
    value = loss(image_BD, text_BD, **w.pair)
    return outcome(value, {"tower": w.tower_ED, **w.pair}, {"image": image_BD})


def ground(dtype: torch.dtype, *, form: str, duplicates: str, some: bool, ignore_cos: float | None = None) -> Outcome:
    w = World(dtype)
    name_GR = torch.randint(1, 8, (G, R), generator=w.generator) * 2**40
    valid_GR = torch.rand(G, R, generator=w.generator) < 0.6
    valid_GR[: G // 4] = False  # the first of four ranks has no region
    valid_BR, name_BR = share(valid_GR & some), share(name_GR)
    text_BRE = share(w.normal(8, E)[name_GR // 2**40])
    u_BRD = w.leaf(share(w.normal(G, R, D)))
    if form == "literal":
        text = (text_BRE @ w.tower_ED, name_BR)
    else:
        names = unique_names(name_BR, valid_BR, multiple=2)
        text = (gather_rows(text_BRE).flatten(0, 1)[names.local_slots] @ w.tower_ED, names)
    loss = region_loss if form == "literal" else unique_region_loss
    value, report = loss(u_BRD, *text, valid_BR, **w.pair, duplicates=duplicates, ignore_cos=ignore_cos)
    found = outcome(value, {"tower": w.tower_ED, **w.pair}, {"region": u_BRD})
    return {**found, "regions": report.regions, "share": report.share}


def koleo(dtype: torch.dtype, group: int | None = 4) -> Outcome:
    w = World(dtype)
    x_BD = w.leaf(share(w.normal(G, D)))
    return outcome(koleo_loss(x_BD, group or len(x_BD)), {}, {"x": x_BD})


def dino(dtype: torch.dtype) -> Outcome:
    w = World(dtype)
    head_DC, W_KC, teacher_W_KC = w.leaf(w.normal(D, C)), w.leaf(w.normal(K, C)), w.normal(K, C)
    x_BMD, teacher_BC = w.leaf(share(w.normal(G, M, D))), F.normalize(share(w.normal(G, C)), dim=-1)
    student_BMC = F.normalize(x_BMD @ head_DC, dim=-1)
    loss, _ = self_distillation_loss(
        student_BMC, W_KC, teacher_BC, teacher_W_KC, w.normal(K), tau_t=0.05, chunk_rows=2 * M
    )
    return outcome(loss, {"head": head_DC, "prototypes": W_KC}, {"x": x_BMD})


def ibot(dtype: torch.dtype) -> Outcome:
    w = World(dtype)
    head_DC, W_KC, teacher_W_KC = w.leaf(w.normal(D, C)), w.leaf(w.normal(K, C)), w.normal(K, C)
    mask_BN = share(torch.rand(G, N, generator=w.generator).argsort(1) < N // 2)
    index_P = masked_index(mask_BN)
    x_BND, teacher_BNC = w.leaf(share(w.normal(G, N, D))), F.normalize(share(w.normal(G, N, C)), dim=-1)
    student_PC = F.normalize(masked_rows(x_BND, index_P) @ head_DC, dim=-1)
    teacher_PC = masked_rows(teacher_BNC, index_P)
    centre = Centre(K, C).to(dtype)
    for _ in range(2):  # two steps of two micro-batches each
        centre.observe(teacher_PC[: len(teacher_PC) // 2])
        centre.observe(teacher_PC[len(teacher_PC) // 2 :])
        centre.update(teacher_W_KC)
    loss, report = masked_prediction_loss(
        student_PC, W_KC, teacher_PC, teacher_W_KC, centre.value, mask_BN, index_P, tau_t=0.05, chunk_rows=7
    )
    found = outcome(loss, {"head": head_DC, "prototypes": W_KC}, {"x": x_BND})
    return {**found, "centre": centre.value, "entropy": average(report.entropy), "kl": average(report.kl)}


def depth(dtype: torch.dtype, *, some: bool, gm_space: str = "normalised") -> Outcome:
    w = World(dtype)
    prediction_BHW, target_BHW = w.leaf(share(w.normal(G, 16, 12))), share(w.normal(G, 16, 12))
    valid_B = share(_depth_valid(w)) & some
    loss, report = depth_loss(prediction_BHW, target_BHW, valid_B, gm_space=gm_space)
    found = outcome(loss, {}, {"prediction": prediction_BHW})
    return {**found, "images": report.images, "share": report.share, "ssi_trim": average(report.ssi_trim)}


def _depth_valid(w: World) -> Tensor:
    valid_G = torch.rand(G, generator=w.generator) < 0.6
    valid_G[: G // 4] = False
    return valid_G


def _vl_from(v: Tensor, columns: Tensor, log_scale: Tensor, bias: Tensor, offset: int, divisor: int) -> Tensor:
    sign = -torch.ones(len(v), len(columns), dtype=v.dtype)
    sign.diagonal(offset).fill_(1)
    logits = log_scale.exp() * F.normalize(v, dim=-1) @ F.normalize(columns, dim=-1).T + bias
    return F.softplus(-sign * logits).sum() / divisor


def _no_gradient(v: Tensor, t: Tensor, **pair: Tensor) -> Tensor:
    return _vl_from(v, gather_rows(t.detach()) + 0 * t.sum(), **pair, offset=rank() * len(v), divisor=len(v))


def _own_slot_only(v: Tensor, t: Tensor, **pair: Tensor) -> Tensor:
    columns = list(gather_rows(t.detach()).split(len(t)))
    columns[rank()] = t
    return _vl_from(v, torch.cat(columns), **pair, offset=rank() * len(v), divisor=len(v))


def _no_offset(v: Tensor, t: Tensor, **pair: Tensor) -> Tensor:
    return _vl_from(v, gather_rows(t), **pair, offset=0, divisor=len(v))


def _global_divisor(v: Tensor, t: Tensor, **pair: Tensor) -> Tensor:
    return _vl_from(v, gather_rows(t), **pair, offset=rank() * len(v), divisor=len(v) * world_size())


def _naive(v: Tensor, t: Tensor, **pair: Tensor) -> Tensor:
    return _vl_from(v, gather_rows(t), **pair, offset=rank() * len(v), divisor=len(v))


def wrong_depth(dtype: torch.dtype) -> Outcome:
    """Mean over each rank's own valid images: ranks with few of them weigh too much."""
    w = World(dtype)
    prediction_BHW, target_BHW = w.leaf(share(w.normal(G, 16, 12))), share(w.normal(G, 16, 12))
    valid_B = share(_depth_valid(w))
    loss = (ssi_trim(prediction_BHW, target_BHW) * valid_B).sum() / valid_B.sum().clamp(min=1)
    return outcome(loss, {}, {"prediction": prediction_BHW})


def wrong_ground(dtype: torch.dtype) -> Outcome:
    """Mean over each rank's own valid regions."""
    w = World(dtype)
    u_BRD, t_BRD = w.leaf(share(w.normal(G, R, D))), share(w.normal(G, R, D))
    valid_BR = share(torch.arange(G * R).view(G, R) % 7 > torch.arange(G).unsqueeze(1) // 3)
    loss, report = region_loss(u_BRD, t_BRD, share(torch.arange(G * R).view(G, R)), valid_BR, **w.pair)
    own_mean = loss * report.regions / (world_size() * valid_BR.sum().clamp(min=1))
    return outcome(own_mean, {}, {"region": u_BRD})


CASES: dict[str, Callable[[torch.dtype], Outcome]] = {
    "vl": vl,
    "vl naive": partial(vl, loss=_naive),
    "koleo": koleo,
    "dino": dino,
    "ibot": ibot,
    "depth": partial(depth, some=True),
    "depth ls": partial(depth, some=True, gm_space="ls"),
    "depth none": partial(depth, some=False),
    **{
        f"ground {form} {duplicates}": partial(ground, form=form, duplicates=duplicates, some=True)
        for form in ("literal", "unique")
        for duplicates in ("ignore", "negative", "positive")
    },
    **{
        f"ground {form} cosine": partial(ground, form=form, duplicates="negative", some=True, ignore_cos=0.2)
        for form in ("literal", "unique")
    },
    **{
        f"ground {form} none": partial(ground, form=form, duplicates="ignore", some=False)
        for form in ("literal", "unique")
    },
}
WRONG: dict[str, Callable[[torch.dtype], Outcome]] = {
    "no gradient": partial(vl, loss=_no_gradient),
    "own slot only": partial(vl, loss=_own_slot_only),
    "no offset": partial(vl, loss=_no_offset),
    "global divisor": partial(vl, loss=_global_divisor),
    "depth": wrong_depth,
    "ground": wrong_ground,
    "koleo": partial(koleo, group=None),
}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def run_cases() -> dict[str, Outcome]:
    """Outcome of every case, keyed "case/type", and of the wrong forms in FP64, keyed "wrong/form"."""
    found = {f"{name}/{kind}": case(dtype) for name, case in CASES.items() for kind, dtype in DTYPES.items()}
    return found | {f"wrong/{name}": case(torch.float64) for name, case in WRONG.items()}
