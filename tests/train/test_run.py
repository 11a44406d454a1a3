"""The loop: interruption changes nothing, signals save, guards speak."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from run_nano import lines, nano, trajectory, weights

from mtv.errors import CacheError, CheckpointError, DataError, NumericalError, UsageError
from mtv.shards import build_dataset
from mtv.train import loop
from mtv.train.data.batch import Batch
from mtv.train.recipe import Recipe
from mtv.train.run import train
from mtv.train.setup import prepare
from mtv.train.step import Stepper, StepReport
from mtv.train.stopping import StoppedError

Hook = Callable[[Sequence[Batch], int], None]


@pytest.fixture(scope="module")
def straight(mini_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty steps without interruption."""
    out = tmp_path_factory.mktemp("runs") / "straight"
    train(nano(steps=20), mini_world, out, device="cpu", resume=False)
    return out


def before_each_step(monkeypatch: pytest.MonkeyPatch, hook: Hook) -> None:
    """Call `hook(batches, number)` before every step."""
    step = Stepper.step

    def hooked(self: Stepper, batches: Sequence[Batch], number: int) -> StepReport:
        hook(batches, number)
        return step(self, batches, number)

    monkeypatch.setattr(Stepper, "step", hooked)


def start(recipe: Recipe, data: Path, out: Path, **options: object) -> None:
    """A run in this process."""
    train(recipe, data, out, device="cpu", resume=False, **options)  # type: ignore[arg-type]


def test_kill_and_resume_are_bitwise(straight: Path, mini_world: Path, tmp_path: Path) -> None:
    """20 steps = 10 + kill + 10, then with two workers instead of none."""
    out = tmp_path / "killed"
    settings = ["optim.global_batch=4", "samples=80", "log.every=1", "perf.threads=1", "save.every=5"]
    command = [sys.executable, "-m", "mtv.train", "run", "nano", "--data", str(mini_world), "--out", str(out)]
    process = subprocess.Popen([*command, *(w for s in settings for w in ("--set", s))], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (out / "step_0000010").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    with (out / "log.jsonl").open("a") as file:
        file.write('{"kind": "step", "st')
    train(nano("save.every=5", "data.workers=2", steps=20), mini_world, out, device="cpu", resume=True)
    assert weights(out) == weights(straight)
    assert trajectory(out) == trajectory(straight)
    assert [line["step"] for line in lines(out, "step")] == list(range(1, 21))
    assert lines(out, "start")[0]["step"] == 0
    assert len(lines(out, "start")) == 2


def test_stop_and_go_with_the_same_workers_is_bitwise(straight: Path, mini_world: Path, tmp_path: Path) -> None:
    """By `stop_after`; then a run that is done does nothing more."""
    recipe = nano(steps=20)
    for stop in (10, None, None):
        start(recipe, mini_world, tmp_path / "r", stop_after=stop)
    assert weights(tmp_path / "r") == weights(straight)
    assert trajectory(tmp_path / "r") == trajectory(straight)
    assert lines(tmp_path / "r", "end") == [lines(tmp_path / "r")[-1]]


def test_each_step_line_says_everything(straight: Path) -> None:
    first, last = lines(straight, "step")[0], lines(straight, "step")[-1]
    assert {"epoch", "samples", "lr", "tau_t", "loss", "loss/vl", "loss/dino", "loss/ibot", "loss/koleo"} <= set(first)
    assert {"loss/ground", "loss/depth", "gradient_norm", "img_s", "mfu", "data_wait", "memory_gib"} <= set(first)
    assert {"eta_s", "elapsed_s", "skipped", "ssl/dino_target_entropy", "vl/scale", "depth/valid_share"} <= set(first)
    assert (last["step"], last["samples"], last["epoch"]) == (20, 80, 76 // 24)
    assert last["mfu"] is None
    assert last["eta_s"] == 0
    assert last["img_s"] > 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_step_and_saves(
    number: int, code: int, mini_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    with monkeypatch.context() as patch:
        before_each_step(patch, lambda _, step: os.kill(os.getpid(), number) if step == 2 else None)
        with pytest.raises(StoppedError, match=r"step 3 of 6.*\n.*mtv-train resume") as caught:
            start(nano(), mini_world, tmp_path / "r")
    assert caught.value.exit_code == code
    assert (tmp_path / "r" / "latest").read_text() == "step_0000003\n"
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == handlers
    start(nano(), mini_world, tmp_path / "r")
    assert [line["step"] for line in lines(tmp_path / "r", "step")] == [1, 2, 3, 4, 5, 6]


def test_a_second_interrupt_ends_at_once(mini_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(_: Sequence[Batch], step: int) -> None:
        for _ in range(2 if step == 2 else 0):
            os.kill(os.getpid(), signal.SIGINT)

    before_each_step(monkeypatch, twice)
    with pytest.raises(KeyboardInterrupt):
        start(nano(), mini_world, tmp_path / "r")
    assert not list((tmp_path / "r").glob("step_*"))


def test_a_poisoned_batch_is_named_and_skipped(
    mini_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    poisoned: list[str] = []

    def poison(batches: Sequence[Batch], step: int) -> None:
        if step == 3:
            batches[0].global_BCHW[1] = torch.nan
            poisoned.extend(batches[0].keys)

    before_each_step(monkeypatch, poison)
    start(nano(), mini_world, tmp_path / "r")
    (skip,) = lines(tmp_path / "r", "skip")
    assert skip["step"] == 4
    failed = {entry["objective"]: entry for entry in skip["failed"]}
    assert {"vl", "ground", "depth"} <= set(failed)
    assert failed["vl"] == {"rank": 0, "objective": "vl", "samples": poisoned}
    steps = lines(tmp_path / "r", "step")
    assert [line["skipped"] for line in steps] == [False, False, False, True, False, False]
    assert steps[3]["loss"] is None
    assert "rank 0: vl" in caplog.text
    assert poisoned[0] in caplog.text


def test_too_many_failures_in_a_row_end_the_run(mini_world: Path, tmp_path: Path) -> None:
    """A learning rate that blows the weights up after the first step."""
    recipe = nano("optim.lr=1e30", "optim.warmup=0", "optim.skip_limit=2")
    with pytest.raises(NumericalError, match=r"step 3: .* 2 steps in a row .*rank 0: vl.*\n.*optim.lr"):
        start(recipe, mini_world, tmp_path / "r")
    assert [line["step"] for line in lines(tmp_path / "r", "skip")] == [2, 3]
    assert not list((tmp_path / "r").glob("step_*"))


def test_collapse_alarms_are_written(mini_world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With a limit that every healthy run breaks."""
    start(nano("ssl.alarm=0.95", steps=2), mini_world, tmp_path / "r")
    assert "share a prototype" in lines(tmp_path / "r", "alarm")[0]["alarms"][0]
    assert caplog.text.count("collapse?") == 1


def test_garbage_is_collected_on_schedule(mini_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gc

    states: list[bool] = []
    before_each_step(monkeypatch, lambda *_: states.append(gc.isenabled()))
    monkeypatch.setattr(loop, "COLLECT_EVERY", 2)
    collected: list[int] = []
    collect = gc.collect
    monkeypatch.setattr(gc, "collect", lambda: (collected.append(len(states)), collect())[1])
    start(nano(steps=5), mini_world, tmp_path / "r")
    assert states == [False] * 5
    assert [n for n in collected if n in (1, 2, 4)] == [1, 2, 4]
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_labels_that_are_missing_are_named(mini_world: Path, tmp_path: Path) -> None:
    """The image-text part of such a corpus is trained all the same; two sets of a kind must be told apart."""
    corpus = tmp_path / "corpus"
    shutil.copytree(mini_world / "pretrain", corpus)
    shutil.move(corpus / "labels" / "depth-mini-v1", tmp_path / "away")
    build_dataset(corpus)
    with pytest.raises(DataError, match=r"no label set depth-\*.*objective depth needs.*regions-mini-v1"):
        start(nano(), corpus, tmp_path / "a")
    start(nano("tasks=vl,ground", steps=1), corpus, tmp_path / "b")
    shutil.copytree(corpus / "labels" / "regions-mini-v1", corpus / "labels" / "regions-mini-v2")
    build_dataset(corpus)
    with pytest.raises(UsageError, match=r"several regions label sets: .*\n.*--set data.labels=regions-mini-v1"):
        start(nano("tasks=vl,ground"), corpus, tmp_path / "c")
    start(nano("tasks=vl,ground", "data.labels=regions-mini-v2", steps=1), corpus, tmp_path / "d")
    with pytest.raises(DataError, match=r"no indexed corpus.*\n.*mtv-train data index"):
        start(nano(), tmp_path / "away", tmp_path / "e")


def test_a_folder_belongs_to_one_recipe_and_one_job(mini_world: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    start(nano(steps=1), mini_world, out)
    with pytest.raises(CheckpointError, match=r"another recipe: optim.lr: 0.001 -> 0.5"):
        start(nano("optim.lr=0.5", steps=1), mini_world, out)
    with pytest.raises(CheckpointError, match="no checkpoint to go on from"):
        train(nano(), mini_world, tmp_path / "new", device="cpu", resume=True)
    code = "import sys, time; from pathlib import Path; from mtv.train.claim import locked\n"
    code += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        try:
            with pytest.raises(CacheError, match=f"in progress: pid {other.pid} on "):
                start(nano(steps=1), mini_world, out)
        finally:
            other.kill()
    start(nano(steps=1), mini_world, out)


def test_what_cannot_work_fails_before_the_first_step(mini_world: Path, tmp_path: Path) -> None:
    cases = [
        ("optim.accumulate=4", "KoLeo needs at least 2 images"),
        ("optim.accumulate=3", "does not divide"),
        ("log.trackers=wandb", r"wandb, which is not installed\n.*mtv\[track\]"),
        ("log.trackers=tensorboard", r"tensorboard, which is not installed\n.*mtv\[track\]"),
    ]
    for setting, message in cases:
        if setting.startswith("log.trackers") and _installed(setting.partition("=")[2]):
            continue
        with pytest.raises(UsageError, match=message):
            start(nano(setting), mini_world, tmp_path / "r")
        assert not list((tmp_path / "r").glob("step_*"))
    with pytest.raises(UsageError, match=r"eval.data=.*no such directory"):
        start(nano("eval.every=1", f"eval.data={tmp_path / 'gone'}"), mini_world, tmp_path / "r")


def _installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def test_scale_and_bias_start_where_the_recipe_says(mini_world: Path) -> None:
    own = nano(steps=1).set(["vl.init_scale=20", "vl.init_bias=-5", "prompter.own_scale=true"])
    for recipe, scale, bias in ((nano(steps=1), 10.0, -10.0), (own, 20.0, -5.0)):
        model = prepare(recipe, mini_world, torch.device("cpu"), fresh=True, download=False).parallel.learner.model
        for log_scale, shift in ((model.log_scale, model.bias), model.region_scale):
            assert log_scale is not None
            assert shift is not None
            assert log_scale.exp().item() == pytest.approx(scale)
            assert shift.item() == bias
    with pytest.raises(UsageError, match="init_scale"):
        nano(steps=1).set(["vl.init_scale=0"])
