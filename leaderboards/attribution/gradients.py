"""How the objectives pulled at the shared trunk during training, read from the log of a run.

`mtv-train` measures with `log.gradients_every` the norm of each objective's gradient on the trunk and the cosine
between every two; the lines of kind `gradients` in `log.jsonl` hold them as `norm/<a>` and `cosine/<a>-<b>`, with the
effective rank of the pooled features. Only these files are read: nothing of the trainer is imported.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mtv.errors import DataError, UsageError
from mtv.leaderboards.attribution.cells import ADDED, BASELINE, NAMES, label
from mtv.leaderboards.grid import Cell, Column, Row, Table
from mtv.leaderboards.study import Objectives

if TYPE_CHECKING:
    import pandas as pd

LOG = "log.jsonl"
RECIPE = "recipe.json"


@dataclass(frozen=True, kw_only=True)
class GradientPoint:
    """One measurement."""

    run: str
    """Name of the run's folder."""
    recipe_hash: str
    """Of the run, as in `TrainingRecord`: finds its study. Empty where the log does not name it."""
    objectives: tuple[str, ...]
    """What the run trains."""
    seed: int | None
    """Of the run; None where its folder has no recipe."""
    step: int
    """Updates done before it."""
    samples: int | None
    """Samples seen before it; None where the folder has no recipe."""
    kind: Literal["norm", "cosine", "rank"]
    """Norm of a gradient, cosine between two, or effective rank of the pooled features."""
    a: str
    """Objective; empty for `rank`."""
    b: str
    """Second objective of a cosine; empty for the others."""
    value: float | None
    """None where it was not finite."""


def read_gradients(run: Path) -> list[GradientPoint]:
    """All measurements of one run, by step; none where `log.gradients_every` was 0.

    Args:
        run: folder of a run of `mtv-train`.

    Raises:
        DataError: no log there, or a line that is not of this form; names the file and line.
    """
    lines = _lines(run)
    recipe = _recipe(run)
    start: Mapping[str, Any] = next((line for _, line in lines if line.get("kind") == "start"), {})
    steps: dict[int, tuple[int, Mapping[str, Any]]] = {}
    for number, line in lines:
        if line.get("kind") == "gradients":
            # A resumed run measures the step of its checkpoint again: the later line belongs to what followed.
            steps[_step(run, number, line)] = number, line
    batch = recipe.get("optim", {}).get("global_batch")
    out = []
    for step, (number, measured) in sorted(steps.items()):
        for name, value in measured.items():
            if (what := _parsed(name)) is None:
                continue
            if value is not None and not isinstance(value, (int, float)):
                raise DataError(f"{run / LOG}: line {number}: {name} is no number: {value!r}")
            kind, a, b = what
            out.append(
                GradientPoint(
                    run=run.name,
                    recipe_hash=str(start.get("recipe_hash") or ""),
                    objectives=tuple(start.get("tasks") or recipe.get("tasks") or ()),
                    seed=recipe.get("seed"),
                    step=step,
                    samples=step * batch if isinstance(batch, int) else None,
                    kind=kind,
                    a=a,
                    b=b,
                    value=None if value is None else float(value),
                )
            )
    return out


def find_runs(folder: Path) -> list[Path]:
    """`folder` if it is a run, else the runs anywhere below it, by name.

    Raises:
        UsageError: no run there.
    """
    if (folder / LOG).is_file():
        return [folder]
    found = sorted(p.parent for p in folder.rglob(LOG)) if folder.is_dir() else []
    if not found:
        raise UsageError(f"no {LOG} in or below {folder}", "Name the folder of a run, or of a sweep of runs.")
    return found


def gradient_frame(runs: Sequence[Path]) -> pd.DataFrame:
    """`read_gradients` of several runs as a tidy frame, one column per field; needs pandas.

    Raises:
        DataError: as `read_gradients`.
    """
    import pandas as pd

    points = [p for run in runs for p in read_gradients(run)]
    return pd.DataFrame([asdict(p) for p in points], columns=list(GradientPoint.__dataclass_fields__))


def gradient_table(points: Sequence[GradientPoint]) -> Table:
    """Mean cosine of each pair over the measurements of all runs of an objective set, and how often it is below 0."""
    values: dict[tuple[Objectives, tuple[str, ...]], list[float]] = {}
    order = (BASELINE, *ADDED)
    for p in points:
        if p.kind == "cosine" and p.value is not None:
            pair = tuple(sorted((p.a, p.b), key=order.index))
            values.setdefault((p.objectives, pair), []).append(p.value)
    pairs = [pair for pair in itertools.combinations(order, 2) if any(pair == b for _, b in values)]
    sets = sorted({o for o, _ in values}, key=lambda o: (len(o), [order.index(t) for t in o]))
    rows = tuple(
        Row(name=label(o), cells=tuple(_cosine_cell(values.get((o, pair), [])) for pair in pairs)) for o in sets
    )
    return Table(
        title="Cosine between gradients on the trunk, mean over training",
        head="run",
        columns=tuple(Column(key="-".join(p), title=" · ".join(NAMES[o] for o in p)) for p in pairs),
        rows=rows,
        notes=(("", "Near 1 two objectives ask for the same change, below 0 they undo each other."),),
    )


def _cosine_cell(values: Sequence[float]) -> Cell:
    if not values:
        return Cell(text="–")
    below = sum(v < 0 for v in values) / len(values)
    return Cell(value=sum(values) / len(values), decimals=3, signed=True, label=f"{below:.0%} of {len(values)} below 0")


def _lines(run: Path) -> list[tuple[int, dict[str, Any]]]:
    """Number and content of every line; a last one that was cut off by a kill is left out."""
    path = run / LOG
    try:
        raw = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{path} cannot be read as the log of a run ({e})") from e
    out = []
    for number, text in enumerate(raw, 1):
        try:
            line = json.loads(text)
        except ValueError as e:
            if number == len(raw) and not text.endswith("\n"):
                break
            raise DataError(f"{path}: line {number} is not JSON ({e})") from e
        if not isinstance(line, dict):
            raise DataError(f"{path}: line {number} is no object")
        out.append((number, line))
    return out


def _recipe(run: Path) -> dict[str, Any]:
    path = run / RECIPE
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as e:
        raise DataError(f"{path} cannot be read ({e})") from e
    return recipe if isinstance(recipe, dict) else {}


def _step(run: Path, number: int, line: Mapping[str, Any]) -> int:
    if not isinstance(line.get("step"), int):
        raise DataError(f"{run / LOG}: line {number}: no step")
    return int(line["step"])


def _parsed(name: str) -> tuple[Literal["norm", "cosine", "rank"], str, str] | None:
    """Kind and objectives of a key of the log; None for other keys."""
    kind, _, of = name.partition("/")
    if kind == "norm" and of:
        return "norm", of, ""
    if kind == "cosine" and of.count("-") == 1:
        a, _, b = of.partition("-")
        return "cosine", a, b
    return ("rank", "", "") if name == "rank" else None
