"""Checkpoints: everything that a run needs to go on, bit for bit, in whole tensors and JSON; nothing is ever unpickled.

A step folder is the export of the run (what `mtv:RUN` and transformers read, with heads, teacher and centres) plus
`optimizer.safetensors` and `state.json`. There is no state of generators: order, crops and masks are functions of the
recipe's seed and of `samples_seen`, learning rate and temperatures of the step. The number of processes and the way
they share parameters may change between two sessions of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mtv import __version__
from mtv.atomic import atomic_write
from mtv.collectives import world_size
from mtv.encoders.checkpoint import check_finite, read_state_dict
from mtv.errors import CheckpointError, DataError
from mtv.model.heads_file import FILE as HEADS
from mtv.model.heads_file import read_heads
from mtv.model.hf_export import WEIGHTS, export_hf
from mtv.model.hf_keys import from_hf
from mtv.model.model import MtvModel, parameter_counts, teacher
from mtv.model.tokenizer import Tokenizer
from mtv.train.data.order import ORDER_VERSION
from mtv.train.init_weights import start_from
from mtv.train.learner import Learner
from mtv.train.optimizer_file import load_optimizer, optimizer_state, read_optimizer
from mtv.train.parallel import Parallel
from mtv.train.recipe import Recipe, differences
from mtv.train.run_folder import OPTIMIZER, STATE, new_step, newest_checkpoint, read_state, seal, verify, write_recipe
from mtv.train.whole import gathered, on_first, put, settle
from mtv.training_record import TrainingRecord

__all__ = ["RunState", "load_checkpoint", "newest_checkpoint", "read_state", "save_checkpoint", "start_from"]


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Where a run stands."""

    step: int
    """Optimiser steps taken or skipped."""
    samples_seen: int
    """Samples of all processes so far: where the loader goes on."""
    skipped_in_a_row: int
    """Steps just before this point that were skipped."""


def save_checkpoint(
    run: Path,
    parallel: Parallel,
    state: RunState,
    *,
    tokenizer: Tokenizer | None,
    data_hash: str,
    pictures_hash: str,
    keep: int,
) -> Path:
    """Write a step folder and make it the newest. All ranks must call; rank 0 writes.

    Args:
        run: folder of the run, made when it does not exist.
        parallel: between two steps.
        state: where the run stands.
        tokenizer: the run's; None only without a text tower.
        data_hash: of the pictures and label sets that are read (`ShardDataset.content_hash`).
        pictures_hash: of the pictures alone, which runs of all objectives share.
        keep: newest checkpoints that stay.

    Returns:
        The step folder.

    Raises:
        CacheError: the disk is full or not writable; earlier checkpoints stay.
        CheckpointError: weights, centres or moments that are not finite; nothing is written.
    """
    learner = parallel.learner
    settle(learner)
    training = {
        "training": training_record(learner.recipe, state.samples_seen, pictures_hash).to_dict(),
        "recipe": learner.recipe.to_dict(),
    }
    tensors = gathered(learner.state_dict())
    moments = gathered(optimizer_state(learner, parallel.optimizer))

    def write() -> Path:
        check_finite(moments, OPTIMIZER)
        with new_step(run, state.step, keep=keep) as folder:
            _export(learner, tensors, folder, tokenizer, training)
            atomic_write(folder / OPTIMIZER, lambda p: save_file(moments, p))
            seal(folder, {**asdict(state), **_origin(learner, data_hash)})
        write_recipe(run, learner.recipe)
        return run / f"step_{state.step:07d}"

    return on_first(write)


def load_checkpoint(folder: Path, parallel: Parallel, *, data_hash: str | None, new_order: bool = False) -> RunState:
    """Continue from a step folder, in place. All ranks must call; nothing is changed if anything is refused.

    Args:
        folder: of a step.
        parallel: built from the recipe that goes on.
        data_hash: of the data set's index; None: not compared.
        new_order: go on with other data, or another version of the order.

    Raises:
        CheckpointError: another format, another recipe (names the fields), a missing or damaged file (names it).
        DataError: other data, without `new_order`.
    """
    saved = read_state(folder)
    _check_recipe(folder, saved, parallel.learner.recipe)
    if not new_order:
        _check_data(folder, saved, data_hash)
    verify(folder, saved)
    learner = parallel.learner
    settle(learner)
    own = learner.state_dict()
    tensors = _read_tensors(folder, learner)
    wrong = sorted(own.keys() ^ tensors.keys()) or [n for n, t in tensors.items() if t.shape != own[n].shape]
    if wrong:
        raise CheckpointError(f"{folder} holds another model: {', '.join(wrong[:4])} ({len(wrong)} in all)")
    moments = read_optimizer(folder / OPTIMIZER, learner)
    for name, tensor in own.items():
        put(tensor, tensors[name])
    load_optimizer(moments, learner, parallel.optimizer)
    return RunState(step=saved["step"], samples_seen=saved["samples_seen"], skipped_in_a_row=saved["skipped_in_a_row"])


def training_record(recipe: Recipe, samples_seen: int, pictures_hash: str) -> TrainingRecord:
    """What a checkpoint after `samples_seen` samples tells those who measure it."""
    return TrainingRecord(
        recipe=recipe.name,
        recipe_hash=recipe.hash,
        study_hash=recipe.study_hash,
        size=recipe.model.name,
        objectives=recipe.tasks,
        seed=recipe.seed,
        samples=samples_seen,
        samples_total=recipe.steps * recipe.batch,
        data_hash=pictures_hash,
    )


def _export(
    learner: Learner,
    tensors: dict[str, Tensor],
    folder: Path,
    tokenizer: Tokenizer | None,
    training: Mapping[str, Any],
) -> None:
    """Build model and teacher around the whole tensors, without memory of their own, and export them."""
    model = learner.model
    with torch.device("meta"):
        whole = MtvModel(model.size, model.objectives, model.ssl_config, model.prompter_config)
        follower = teacher(whole) if learner.teacher is not None else None
    whole.load_state_dict(_under("model", tensors), assign=True)
    if follower is not None:
        follower.load_state_dict(_under("teacher", tensors), assign=True)
    centres = {name.removesuffix(".value"): tensor for name, tensor in _under("centres", tensors).items()}
    export_hf(whole, folder, tokenizer=tokenizer, teacher=follower, centres=centres, training=training)


def _read_tensors(folder: Path, learner: Learner) -> dict[str, Tensor]:
    """Whole tensors under the names of the learner's state dict."""
    size = learner.model.size
    text_layers = size.text.layers if learner.model.text is not None else 0
    file = folder / WEIGHTS
    try:
        towers = from_hf(read_state_dict(file), vision_layers=size.vision.layers, text_layers=text_layers)
    except KeyError as e:
        raise CheckpointError(f"{file} holds another model: it has no {e}") from e
    out = {f"model.{name}": tensor for name, tensor in towers.items()}
    for name, tensor in read_heads(folder / HEADS).tensors.items():
        part = name.split(".")[0]
        if part == "centres":
            out[f"{name}.value"] = tensor
        else:
            out[name if part == "teacher" else f"model.{name}"] = tensor
    return out


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(f"{prefix}."): t for n, t in tensors.items() if n.startswith(f"{prefix}.")}


def _origin(learner: Learner, data_hash: str) -> dict[str, Any]:
    return {
        "recipe": learner.recipe.to_dict(),
        "recipe_hash": learner.recipe.hash,
        "data_hash": data_hash,
        "order_version": ORDER_VERSION,
        "parameters": parameter_counts(learner.model),
        "processes": world_size(),
        "torch": torch.__version__,
        "mtv": __version__,
    }


def _check_recipe(folder: Path, saved: dict[str, Any], asked: Recipe) -> None:
    changed = differences(Recipe.from_dict(saved["recipe"], where=str(folder / STATE)), asked)
    if changed:
        raise CheckpointError(
            f"{folder} belongs to another recipe: {'; '.join(changed)}",
            "Resume with the recipe of the run, or start a new run from these weights with --set init=FOLDER.",
        )


def _check_data(folder: Path, saved: dict[str, Any], data_hash: str | None) -> None:
    remedy = "Give the data of the run, or --new-order to go on with these in an order of their own."
    if data_hash is not None and data_hash != saved["data_hash"]:
        raise DataError(
            f"{folder} was trained on other data: index {saved['data_hash'][:12]}, now {data_hash[:12]}", remedy
        )
    if saved["order_version"] != ORDER_VERSION:
        raise DataError(
            f"{folder} was trained in order {saved['order_version']} of the samples, this mtv has {ORDER_VERSION}",
            remedy,
        )
