"""Initial weights from elsewhere (`recipe.init`): the towers of a `SiglipModel` directory or of another run."""

from __future__ import annotations

from pathlib import Path

from mtv.model.hf_import import load_towers
from mtv.model.model import MtvModel
from mtv.train.run_folder import LATEST, find_checkpoint


def start_from(model: MtvModel, directory: Path) -> None:
    """Take over the towers, in place; heads stay fresh and the teacher will be a copy, of which a warning tells.

    Args:
        model: before the `Learner` is made of it, which copies it into the teacher.
        directory: the official MTV, Google's SigLIP, an export of ours, a step folder, or a run (its newest step).

    Raises:
        CheckpointError: missing or damaged files, or towers of another size; names file and fields.
    """
    load_towers(model, find_checkpoint(directory) if (directory / LATEST).is_file() else directory)
