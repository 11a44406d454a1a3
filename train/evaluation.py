"""Small benchmarks while a run goes on, through `mtv.eval.evaluate` on the checkpoint that was just written.

Evaluating a checkpoint instead of the live model leaves the training state alone by construction, and the number is
that of weights which exist. A benchmark that fails is reported and does not end the run.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from mtv.errors import MtvError, UsageError
from mtv.train.corpus import corpus_root
from mtv.train.options import EvalOptions

log = logging.getLogger(__name__)


def evaluation_root(options: EvalOptions, data: Path) -> Path:
    """Where the benchmarks are.

    Args:
        options: `eval.*` of the recipe.
        data: `--data`; its benchmarks stand beside the corpus, as in a miniature world.

    Raises:
        UsageError: no such directory.
        DataError: no corpus there.
    """
    root = Path(options.data) if options.data is not None else corpus_root(data).parent
    if not root.is_dir():
        raise UsageError(f"eval.data={root}: no such directory", "Name the folder that holds the benchmarks.")
    return root


def run_evaluation(step_folder: Path, options: EvalOptions, root: Path, device: torch.device) -> dict[str, Any]:
    """Headline numbers of a checkpoint. All ranks must call.

    Args:
        step_folder: `RUN/step_N`.
        options: `eval.*` of the recipe.
        root: see `evaluation_root`.
        device: where to run.

    Returns:
        `<metric>` to its value, and `error/<task>` to the message where one failed.
    """
    from mtv.eval import evaluate

    found: dict[str, Any] = {}
    for preset, tasks in _by_preset(options.tasks).items():
        try:
            results = evaluate(
                f"mtv:{step_folder}",
                tasks,
                root,
                preset,
                limit=options.limit,
                device=str(device),
                strict=False,
            )
        except MtvError as e:
            found |= {f"error/{task}": str(e) for task in tasks}
            continue
        for result in results:
            if result.headline is not None:
                name, metric = result.headline
                found[name] = metric.value
            elif result.error is not None:
                found[f"error/{result.task}"] = result.error["message"]
    for name, message in found.items():
        if name.startswith("error/"):
            log.warning("evaluation of %s failed, the run goes on: %s", name.removeprefix("error/"), message)
    return found


def _by_preset(tasks: tuple[str, ...]) -> dict[str | None, list[str]]:
    """`task/preset` strings by preset; None where none is given."""
    groups: dict[str | None, list[str]] = {}
    for text in tasks:
        task, _, preset = text.partition("/")
        groups.setdefault(preset or None, []).append(task)
    return groups
