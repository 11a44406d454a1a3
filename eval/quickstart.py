"""The quickstart's work: a miniature world, a short training run, and the suite on every model.

Notable choices:
* The trainer is a process of its own (`python -m mtv.train`): this room does not know it.
* How many samples the run gets is decided once, from the measured speed of this machine, and kept in `quickstart.json`:
  it is part of the recipe, so that another number would be another run. Everything else is read from what is there.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtv import __version__
from mtv.atomic import atomic_write_json
from mtv.children import listening, reason, run_child
from mtv.errors import CheckpointError, MtvError, UsageError
from mtv.training_record import read_training

if TYPE_CHECKING:
    from mtv.results import TaskResult

log = logging.getLogger(__name__)
FILE = "quickstart.json"
RATE_STEPS = 10
"""Steps that are timed; the first three are left out, in which memory is claimed and caches fill."""
LEAST_STEPS = 4


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides a quickstart; the defaults are its promise, the rest is there for tests and for the curious."""

    minutes: float = 2.5
    """Of training."""
    seed: int = 0
    """Of world, initial weights, order and every draw."""
    scale: str = "small"
    """Of the world."""
    size: int = 96
    """Shorter side of the world's pictures in pixels."""
    recipe: str = "mini"
    """Of the trainer."""
    suite: str = "mini"
    """Task or suite that every model is measured with."""

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise UsageError(f"--minutes {self.minutes:g}: must be above 0")


@dataclass(frozen=True, kw_only=True)
class Decided:
    """What was measured and decided once."""

    img_s: float
    """Images per second of training on this machine."""
    samples: int
    """Of the run."""
    warmup: int
    """Steps of the run's warm-up: an eighth of it, or what the recipe has."""


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Where things are."""

    out: Path
    """`--out`."""

    @property
    def world(self) -> Path:
        """The miniature world."""
        return self.out / "world"

    @property
    def run(self) -> Path:
        """The run with all objectives."""
        return self.out / "runs" / "full"

    @property
    def results(self) -> Path:
        """Result store."""
        return self.out / "results"

    @property
    def cache(self) -> Path:
        """Features; removed when all is done."""
        return self.out / "cache"

    @property
    def report(self) -> Path:
        """HTML page."""
        return self.out / "report.html"

    def log(self, name: str) -> Path:
        """What a child printed."""
        return self.out / "logs" / f"{name}.log"


class StoppedError(MtvError):
    """Told to stop by a signal; everything that was done is saved."""

    def __init__(self, number: int) -> None:
        super().__init__("stopped; everything that was done is saved")
        self.exit_code = 128 + number


def open_folder(folder: Folder, settings: Settings) -> Decided | None:
    """Claim the folder; returns what an earlier quickstart there decided.

    Raises:
        UsageError: it holds a quickstart with other settings; names them.
        CheckpointError: its file cannot be read.
    """
    path = folder.out / FILE
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        before, decided = saved["settings"], saved["decided"]
        kept = Decided(**decided) if decided is not None else None
    except FileNotFoundError:
        _remember(folder, settings, None)
        return None
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise CheckpointError(f"{path} cannot be read: {e}", "Remove the folder, or choose another --out.") from e
    now = asdict(settings)
    wrong = [f"{k}: {before.get(k)!r} -> {v!r}" for k, v in now.items() if before.get(k) != v]
    if wrong:
        raise UsageError(
            f"{folder.out} holds a quickstart with other settings: {'; '.join(wrong)}",
            "Choose another --out, or go on with the old settings.",
        )
    return kept


def make_world(folder: Folder, settings: Settings, *, progress: Callable[[str, int, int, str], None]) -> None:
    """The miniature world, or what of it is missing."""
    from mtv.miniworld import make
    from mtv.miniworld.spec import WorldSpec

    spec = WorldSpec(seed=settings.seed, size=settings.size)
    make.make_world(folder.world, spec, scale=settings.scale, progress=progress)


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """`python -m mtv.train` on the world."""

    folder: Folder
    """Where things are."""
    settings: Settings
    """Of the quickstart."""
    device: str
    """Where to train."""
    lock: int
    """Open file of the quickstart's lock, which lives as long as a trainer."""
    tell: Callable[[str], object]
    """Called with the last line of the trainer."""

    def decide(self) -> Decided:
        """Time some steps, and choose the length of the run from them. The timed run is removed.

        Raises:
            MtvError: the trainer failed; names its log.
            StoppedError: by a signal.
        """
        place = self.folder.out / "runs" / ".speed"
        shutil.rmtree(place, ignore_errors=True)
        recipe = _recipe(self.settings.recipe)
        timed = ["--set", "log.every=1", "--set", "log.gradients_every=0", "--stop-after", str(RATE_STEPS)]
        self._run(place, timed, name="speed")
        rates = [line["img_s"] for line in _lines(place / "log.jsonl") if line.get("kind") == "step"]
        shutil.rmtree(place, ignore_errors=True)
        if len(rates) < RATE_STEPS:
            log_file = self.folder.log("speed")
            raise MtvError(f"the trainer logged {len(rates)} of {RATE_STEPS} steps", f"Look at {log_file}.")
        decided = chosen(recipe, statistics.median(rates[3:]), self.settings.minutes)
        _remember(self.folder, self.settings, decided)
        return decided

    def train(self, decided: Decided) -> None:
        """Train the full model, or go on with it.

        Raises:
            MtvError: the trainer failed; names its log.
            StoppedError: by a signal, after saving.
        """
        length = ["--set", f"samples={decided.samples}", "--set", f"optim.warmup={decided.warmup}"]
        self._run(self.folder.run, length, name="train")

    def _run(self, run: Path, more: list[str], *, name: str) -> None:
        command = [sys.executable, "-m", "mtv.train", "run", self.settings.recipe]
        command += ["--data", str(self.folder.world), "--out", str(run), "--seed", str(self.settings.seed)]
        log_file = self.folder.log(name)
        with listening() as stop:
            code = run_child(
                [*command, "--device", self.device, *more], log_file, stop, pass_fds=(self.lock,), tell=self.tell
            )
        if stop.number is not None:
            raise StoppedError(stop.number)
        if code:
            raise MtvError(f"the trainer failed: {reason(log_file)}", f"All it said is in {log_file}.")


def chosen(recipe: Mapping[str, Any], img_s: float, minutes: float) -> Decided:
    """The length of a run that takes about `minutes`, at most the recipe's own, in whole steps.

    Args:
        recipe: `mtv-train recipes NAME --json`.
        img_s: images per second.
        minutes: of training.
    """
    batch = int(recipe["optim"]["global_batch"])
    steps = max(LEAST_STEPS, min(round(img_s * 60 * minutes / batch), int(recipe["samples"]) // batch))
    return Decided(img_s=img_s, samples=steps * batch, warmup=min(int(recipe["optim"]["warmup"]), steps // 8))


def is_trained(folder: Folder, decided: Decided) -> bool:
    """Whether the run is over."""
    step = newest_step(folder)
    training = read_training(step) if step is not None else None
    return training is not None and training.finished and training.samples == decided.samples


def newest_step(folder: Folder) -> Path | None:
    """The newest checkpoint of the run."""
    try:
        step = folder.run / (folder.run / "latest").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return step if step.is_dir() else None


def models(folder: Folder, settings: Settings, shipped: Mapping[str, Path]) -> dict[str, str]:
    """Name to spec of every model, from knowing nothing to knowing most.

    Args:
        folder: after training.
        settings: for the seed of the random model.
        shipped: checkpoints of this installation.

    Raises:
        CheckpointError: the run has no checkpoint.
    """
    step = newest_step(folder)
    if step is None:
        raise CheckpointError(f"{folder.run} has no checkpoint", f"Look at {folder.log('train')}.")
    specs = {
        "random": f"hf:{step.resolve()}@random?seed={settings.seed}",
        "quickstart": f"mtv:{folder.run.resolve()}",
    }
    return specs | {f"shipped-{name}": f"hf:{path.resolve()}" for name, path in shipped.items()}


def measure(folder: Folder, settings: Settings, name: str, spec: str, *, device: str, quiet: bool) -> list[TaskResult]:
    """The suite on one model; what is stored already is only read. Returns the failed results.

    Raises:
        MtvError: the model or the data cannot be opened.
    """
    from mtv.eval.api import evaluate

    results = evaluate(
        f"{name}={spec}",
        [settings.suite],
        folder.world,
        out=folder.results,
        cache=folder.cache,
        device=device,
        quiet=quiet,
        strict=False,
    )
    return [r for r in results if r.status == "failed"]


def _recipe(name: str) -> dict[str, Any]:
    """Every field of a recipe, from the trainer's own listing."""
    command = [sys.executable, "-m", "mtv.train", "recipes", name, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(f"recipe {name}: {done.stderr.strip().removeprefix('error: ')}")
    recipe: dict[str, Any] = json.loads(done.stdout)
    return recipe


def _lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a log."""
    found = []
    for raw in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError):
            found.append(json.loads(raw))
    return found


def _remember(folder: Folder, settings: Settings, decided: Decided | None) -> None:
    values = {"settings": asdict(settings), "decided": asdict(decided) if decided else None, "mtv": __version__}
    atomic_write_json(folder.out / FILE, values)
