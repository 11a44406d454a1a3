"""Writes `mini` as weight decay alone would leave it: random weights, each times what decay keeps of it in a run.

A control: what such a model scores more than untrained weights, `mini` owes to the decay and not to what it learnt.

    python tests/benchmarks/shrunk_weights.py MODEL SEED OUT

MODEL is a `SiglipModel` directory of `mini` (`mtv-train export --to hf`), of which only the shapes count.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from safetensors.torch import save_file

from mtv.encoders import load
from mtv.train.recipe import Recipe
from mtv.train.recipes import get_recipe
from mtv.train.schedules import learning_rate


def kept_share(recipe: Recipe) -> float:
    """The factor that AdamW's decoupled decay alone puts on a weight over a run."""
    share = 1.0
    for step in range(recipe.steps):
        share *= 1 - learning_rate(step, recipe.steps, recipe.optim) * recipe.optim.weight_decay
    return share


def main(model: Path, seed: int, out: Path) -> None:
    """Copy the directory `model`, with the random weights of `seed` shrunk in place of its own."""
    state = load(f"hf:{model.resolve()}@random?seed={seed}").module.state_dict()
    share = kept_share(get_recipe("mini"))
    shutil.copytree(model, out)
    (out / "mtv_training.json").unlink(missing_ok=True)
    shrunk = {name: share * tensor for name, tensor in state.items() if tensor.is_floating_point()}
    save_file(shrunk, out / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
