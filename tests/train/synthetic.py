"""A nano recipe with all objectives and random batches for it: every trainer test that needs no files on disk.

Contents are random, relations are the loader's: names with equal ids have equal tokens, empty slots hold the whole
picture, id 0 and an empty text, missing depth is 0.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from mtv.collectives import rank, world_size
from mtv.model.config import SIZES, PrompterConfig, SslConfig
from mtv.model.mini_bpe import NAME as MINI_BPE
from mtv.model.model import MtvModel
from mtv.model.tokenizer import EOS_ID
from mtv.train.data.batch import Batch
from mtv.train.data.options import DataOptions, ViewOptions
from mtv.train.data.order import micro_batch
from mtv.train.learner import Learner
from mtv.train.options import OptimOptions, PerfOptions, SaveOptions, SslOptions
from mtv.train.parallel import Parallel
from mtv.train.recipe import Recipe
from mtv.train.step import Stepper, StepReport

NAMES = 6
"""Different region names in a batch; fewer than the slots, so that some repeat."""


def tiny_recipe(**changes: Any) -> Recipe:
    """Six steps of 16 samples on the `nano` model; `optim__lr=1e-2, tasks=("vl", "ssl")` change fields as `--set`."""
    recipe = Recipe(
        name="tiny-test",
        model=SIZES["nano"],
        tokenizer=MINI_BPE,
        samples=96,
        heads=SslConfig(prototypes=48, hidden=32, bottleneck=16),
        prompter=PrompterConfig(pe_high=2.0),
        ssl=SslOptions(koleo_group=4, teacher_momentum=0.9, chunk_rows=24),
        views=ViewOptions(local_size=16, local_crops=2, min_side_px=2.0),
        data=DataOptions(canvas=40, depth_canvas=40, workers=0),
        optim=OptimOptions(global_batch=16, warmup=2, lr=1e-3),
        perf=PerfOptions(precision="fp32"),
        save=SaveOptions(every=3, keep=2),
    )
    values = {k.replace("__", "."): ",".join(v) if isinstance(v, tuple) else v for k, v in changes.items()}
    return recipe.set(f"{name}={value}" for name, value in values.items())


def synthetic_batch(recipe: Recipe, size: int, seed: int) -> Batch:
    """`size` samples with every view and label, on the CPU; at least one region and one depth map are missing."""
    g = torch.Generator().manual_seed(seed)
    vision, text, views = recipe.model.vision, recipe.model.text, recipe.views
    side, small = vision.image_size, views.local_size
    valid_BR = torch.rand(size, views.regions, generator=g) < 0.6
    valid_BR[0] = True
    valid_BR[-1] = False
    name_BR = torch.randint(1, NAMES + 1, valid_BR.shape, generator=g) * valid_BR
    depth_valid_B = torch.rand(size, generator=g) < 0.7
    depth_valid_B[0], depth_valid_B[-1] = True, False
    depth_BHW = _disparity(size, side, g) * depth_valid_B[:, None, None]
    return Batch(
        keys=tuple(f"s{seed}-{i}" for i in range(size)),
        global_BCHW=torch.randn(size, 3, side, side, generator=g).clamp(-1, 1),
        local_BMCHW=torch.randn(size, views.local_crops, 3, small, small, generator=g).clamp(-1, 1),
        mask_BN=torch.rand(size, vision.patches, generator=g).argsort(1) < int(views.mask_ratio * vision.patches),
        text_BT=_texts(torch.randint(2, text.vocab_size, (size, text.positions), generator=g), g),
        box_BR4=_boxes(valid_BR, g),
        region_text_BRT=_names(text.vocab_size, text.positions)[name_BR],
        region_valid_BR=valid_BR,
        region_name_BR=name_BR,
        depth_BHW=depth_BHW,
        depth_valid_B=depth_valid_B,
    )


def build(recipe: Recipe, *, bias: float = -2.0, dtype: torch.dtype = torch.float32) -> Parallel:
    """The learner of a recipe on the CPU. With the bias at -2 negatives weigh enough to show errors (at -10 they hide).

    Args:
        bias: of the contrastive losses.
        dtype: float64 shows errors that rounding would hide.
    """
    model = MtvModel(recipe.model, recipe.objectives, recipe.heads, recipe.prompter, seed=recipe.seed)
    if model.bias is not None:
        torch.nn.init.constant_(model.bias, bias)
    return Parallel(Learner(recipe, model).to(dtype), torch.device("cpu"))


def take_steps(parallel: Parallel, numbers: range) -> list[StepReport]:
    """Steps of a run on `synthetic_batch(recipe, global batch, number)`, of which each rank takes its part."""
    recipe = parallel.learner.recipe
    stepper = Stepper(parallel, recipe.steps)
    return [stepper.step(micro_batches(recipe, synthetic_batch(recipe, recipe.batch, n), parallel), n) for n in numbers]


def micro_batches(recipe: Recipe, batch: Batch, parallel: Parallel) -> list[Batch]:
    """This rank's micro-batches of a global batch, as the loader deals them out, in the dtype of the learner."""
    dtype = parallel.learner.model.vision.positions.dtype
    sizes = {"global_batch": recipe.batch, "accumulate": recipe.optim.accumulate}
    ranges = [micro_batch(0, i, rank=rank(), world=world_size(), **sizes) for i in range(recipe.optim.accumulate)]
    return [_in(dtype, part(batch, slice(r.start, r.stop))) for r in ranges]


def _in(dtype: torch.dtype, batch: Batch) -> Batch:
    tensors = {n: v for n, v in vars(batch).items() if isinstance(v, Tensor) and v.is_floating_point()}
    return replace(batch, **{n: v.to(dtype) for n, v in tensors.items()})


def part(batch: Batch, rows: slice) -> Batch:
    """Some samples of a batch, as one rank or micro-batch sees them."""
    cut = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return replace(batch, **{name: value[rows] for name, value in cut.items() if value is not None})


def _texts(ids_BT: Tensor, g: torch.Generator) -> Tensor:
    """Ids that end with EOS at a random length, padded with it."""
    length_B1 = torch.randint(1, ids_BT.shape[1], (len(ids_BT), 1), generator=g)
    return ids_BT.masked_fill(torch.arange(ids_BT.shape[1]) >= length_B1, EOS_ID)


def _names(vocabulary: int, positions: int) -> Tensor:
    """[NAMES + 1, T] tokens of each name; row 0 is the empty text."""
    g = torch.Generator().manual_seed(0)
    table = _texts(torch.randint(2, vocabulary, (NAMES + 1, positions), generator=g), g)
    table[0] = EOS_ID
    return table


def _disparity(size: int, side: int, g: torch.Generator) -> Tensor:
    """[size, side, side] tilted planes with a bump, as smooth as real labels mostly are."""
    y_H1, x_W = torch.linspace(-1, 1, side)[:, None], torch.linspace(-1, 1, side)
    slope_B, tilt_B, height_B = torch.rand(3, size, 1, 1, generator=g)
    return 3 + slope_B * x_W + tilt_B * y_H1 + height_B * torch.exp(-4 * (x_W**2 + y_H1**2))


def _boxes(valid_BR: Tensor, g: torch.Generator) -> Tensor:
    low_BR2 = 0.6 * torch.rand(*valid_BR.shape, 2, generator=g)
    high_BR2 = low_BR2 + 0.1 + 0.3 * torch.rand(*valid_BR.shape, 2, generator=g)
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0])
    return torch.where(valid_BR[..., None], torch.cat([low_BR2, high_BR2], -1), whole)
