"""The quickstart's parts: how long to train, what is remembered, which models there are, errors that name a step."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtv.encoders.spec import parse_spec
from mtv.errors import CheckpointError, DataError, UsageError
from mtv.eval.quickstart import (
    FILE,
    LEAST_STEPS,
    Folder,
    Settings,
    chosen,
    is_trained,
    models,
    newest_step,
    open_folder,
)
from mtv.eval.quickstart_steps import StepError, Steps
from mtv.leaderboards.miniature import shipped_checkpoints


def recipe(*, batch: int = 64, samples: int = 96_000, warmup: int = 100) -> dict[str, Any]:
    """The fields that count."""
    return {"samples": samples, "optim": {"global_batch": batch, "warmup": warmup}}


@given(
    img_s=st.floats(0.1, 1e5),
    minutes=st.floats(0.01, 60),
    batch=st.integers(1, 4096),
    own=st.integers(LEAST_STEPS, 10**5),
)
def test_the_run_takes_the_minutes_or_is_the_whole_recipe(img_s: float, minutes: float, batch: int, own: int) -> None:
    decided = chosen(recipe(batch=batch, samples=own * batch), img_s, minutes)
    steps, rest = divmod(decided.samples, batch)
    assert rest == 0
    assert LEAST_STEPS <= steps <= own
    assert decided.warmup <= steps / 8
    if LEAST_STEPS < steps < own:
        assert math.isclose(decided.samples / img_s, 60 * minutes, rel_tol=0, abs_tol=batch / img_s)


def test_examples_of_lengths() -> None:
    """96 images/s for 2.5 minutes are 225 steps of 64; a fast machine makes the recipe as it stands."""
    two_cores = chosen(recipe(), 96.0, 2.5)
    assert (two_cores.samples, two_cores.warmup) == (225 * 64, 28)
    gpu = chosen(recipe(), 9600.0, 2.5)
    assert (gpu.samples, gpu.warmup) == (96_000, 100)


def test_a_folder_belongs_to_its_settings(tmp_path: Path) -> None:
    folder = Folder(out=tmp_path / "q")
    assert open_folder(folder, Settings()) is None
    assert open_folder(folder, Settings()) is None
    saved = json.loads((folder.out / FILE).read_text())
    saved["decided"] = {"img_s": 12.5, "samples": 640, "warmup": 1}
    (folder.out / FILE).write_text(json.dumps(saved))
    decided = open_folder(folder, Settings())
    assert decided is not None
    assert (decided.img_s, decided.samples, decided.warmup) == (12.5, 640, 1)
    assert newest_step(folder) is None
    assert not is_trained(folder, decided)
    with pytest.raises(UsageError, match=r"minutes: 2.5 -> 5.0; seed: 0 -> 1"):
        open_folder(folder, Settings(minutes=5.0, seed=1))
    (folder.out / FILE).write_text('{"settings": {}}')
    with pytest.raises(CheckpointError, match=FILE):
        open_folder(folder, Settings())
    with pytest.raises(UsageError, match="--minutes 0"):
        Settings(minutes=0.0)


def test_models_from_nothing_to_shipped(tmp_path: Path) -> None:
    """Specs that the parser takes; the random one is built like the trained one."""
    folder = Folder(out=tmp_path / "q")
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        models(folder, Settings(), {})
    step = folder.run / "step_0000004"
    step.mkdir(parents=True)
    (folder.run / "latest").write_text("step_0000004\n")
    assert list(models(folder, Settings(), {})) == ["random", "quickstart"]
    found = models(folder, Settings(seed=7), {"vl": tmp_path / "vl", "full": tmp_path / "full"})
    specs = {name: parse_spec(f"{name}={text}") for name, text in found.items()}
    assert list(specs) == ["random", "quickstart", "shipped-vl", "shipped-full"]
    assert all(spec.alias == name for name, spec in specs.items())
    assert (specs["random"].random, specs["random"].file, specs["random"].options) == (True, str(step), {"seed": "7"})
    assert (specs["quickstart"].scheme, specs["quickstart"].file) == ("mtv", str(folder.run))
    assert specs["shipped-full"].file == str(tmp_path / "full")


def test_shipped_checkpoints_are_those_with_weights(tmp_path: Path) -> None:
    assert shipped_checkpoints(tmp_path) == {}
    for name in ("full", "vl", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    assert shipped_checkpoints(tmp_path) == {}
    for name in ("full", "vl", "other"):
        (tmp_path / name / "model.safetensors").write_bytes(b"")
    assert list(shipped_checkpoints(tmp_path).items()) == [("vl", tmp_path / "vl"), ("full", tmp_path / "full")]
    assert all((path / "config.json").is_file() for path in shipped_checkpoints().values())


def test_steps_count_and_errors_name_them(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mtv")
    steps = Steps({"world": 90.0, "train": 150.0, "evaluate a": 60.0, "evaluate b": 60.0}, again="mtv-eval quickstart")
    with steps.step("world"):
        pass
    steps.skip("train", "done already")
    with steps.step("evaluate a"):
        pass
    with pytest.raises(StepError) as caught, steps.step("evaluate b"):
        raise DataError("the world is damaged", "Make it again.")
    said = [r.getMessage() for r in caplog.records]
    assert said[0] == "step 1 of 4, world (about 6 min 00 s left in all)"
    assert said[2] == "step 2 of 4, train: done already"
    assert said[3] == "step 3 of 4, evaluate a (about 2 min 00 s left in all)"
    assert said[5] == "step 4 of 4, evaluate b (about 0 s left in all)"  # as long as `evaluate a` took
    assert caught.value.exit_code == 3
    assert str(caught.value) == (
        "step 4 of 4, evaluate b: the world is damaged\n  Make it again.\n  Then go on with: mtv-eval quickstart"
    )
