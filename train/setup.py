"""From a recipe and a data folder to everything that a run needs on this process, checked before the first step."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from mtv.allocator import keep_freed_memory
from mtv.collectives import rank, world_size
from mtv.errors import UsageError
from mtv.losses.koleo import group_size
from mtv.model.model import MtvModel
from mtv.model.tokenizer import Tokenizer, load_tokenizer
from mtv.shards import layout
from mtv.shards.dataset import content_hash
from mtv.train.checkpoint import start_from
from mtv.train.corpus import open_corpus
from mtv.train.data.loader import Loader
from mtv.train.learner import Learner
from mtv.train.parallel import Parallel
from mtv.train.recipe import Recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A run on this process, before its first step."""

    recipe: Recipe
    """Resolved."""
    parallel: Parallel
    """Learner and optimiser."""
    loader: Loader
    """Batches of this rank."""
    tokenizer: Tokenizer | None
    """What checkpoints carry; None without a text tower."""
    data_hash: str
    """Of the images and labels that are read."""
    pictures_hash: str
    """Of the images alone."""


def prepare(recipe: Recipe, data: Path, device: torch.device, *, fresh: bool, download: bool) -> Ready:
    """Open the data and build the model.

    Args:
        recipe: resolved.
        data: `--data`.
        device: of this process.
        fresh: nothing will be loaded: take initial weights from `recipe.init`, where it names some.
        download: allow fetching the tokenizer from a hub.

    Raises:
        UsageError: sizes that do not divide, a batch too small for KoLeo, a tokenizer that does not fit.
        DataError: no corpus, or without a label set that an objective needs.
        CheckpointError: no such tokenizer or initial weights.
    """
    if device.type == "cpu":
        keep_freed_memory()
    if recipe.perf.threads is not None:
        torch.set_num_threads(recipe.perf.threads)
    tokenizer = _tokenizer(recipe, download=download)
    _check_batch(recipe)
    model = MtvModel(recipe.model, recipe.objectives, recipe.heads, recipe.prompter, seed=recipe.seed)
    model.set_scale(recipe.vl.init_scale, recipe.vl.init_bias)
    if fresh and recipe.init is not None:
        start_from(model, Path(recipe.init))
    learner = Learner(recipe, model)
    dataset = open_corpus(data, learner.needs, recipe.data.labels)
    loader = Loader(
        dataset,
        data=recipe.data,
        views=recipe.views,
        needs=learner.needs,
        image_size=recipe.model.vision.image_size,
        patch_size=recipe.model.vision.patch_size,
        seed=recipe.seed,
        tokenizer=tokenizer,
        global_batch=recipe.batch,
        accumulate=recipe.optim.accumulate,
        rank=rank(),
        world=world_size(),
        device=device,
    )
    if recipe.optim.accumulate > 1 and recipe.optim.accum == "local" and learner.contrastive:
        log.info("optim.accum=local: negatives come from a micro-batch, not from the whole batch")
    return Ready(
        recipe=recipe,
        parallel=Parallel(learner, device),
        loader=loader,
        tokenizer=tokenizer if model.text is not None else None,
        data_hash=dataset.content_hash,
        pictures_hash=content_hash(dataset.info.shards, (layout.IMAGES,)),
    )


def _tokenizer(recipe: Recipe, *, download: bool) -> Tokenizer:
    tokenizer = load_tokenizer(recipe.tokenizer, positions=recipe.model.text.positions, download=download)
    if tokenizer.vocab_size > recipe.model.text.vocab_size:
        raise UsageError(
            f"tokenizer {recipe.tokenizer} has {tokenizer.vocab_size} ids, the text tower "
            f"{recipe.model.text.vocab_size} (model.text.vocab_size)"
        )
    return tokenizer


def _check_batch(recipe: Recipe) -> None:
    parts = world_size() * recipe.optim.accumulate
    if recipe.batch % parts:
        raise UsageError(
            f"optim.global_batch={recipe.batch} does not divide into {world_size()} processes x "
            f"optim.accumulate={recipe.optim.accumulate}"
        )
    if "ssl" in recipe.tasks:
        group_size(recipe.batch // parts, recipe.ssl.koleo_group)
