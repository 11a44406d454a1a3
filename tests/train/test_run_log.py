"""The log file: what is cut, what JSON cannot hold, what a person reads."""

from __future__ import annotations

import json
import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from run_nano import nano

from mtv.train.display import Display
from mtv.train.meter import Meter
from mtv.train.run_log import RunLog, cut_log, step_text

LINE = {
    "loss": 2.5, "loss/vl": 1.0, "loss/depth": 1.5, "lr": 1e-3, "gradient_norm": 3.0, "img_s": 1234.5, "mfu": 0.5,
    "data_wait": 0.25, "data_wait_stage": "decode", "eta_s": 200.0, "elapsed_s": 12.0,
}  # fmt: skip


def test_lines_after_the_checkpoint_and_torn_lines_go(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    kept = [{"kind": "start", "step": 0}, {"kind": "step", "step": 3}, {"kind": "eval", "step": 4}]
    gone = [{"kind": "step", "step": 5}, {"kind": "end", "step": 4}]
    path.write_text("".join(json.dumps(line) + "\n" for line in [*kept, *gone]) + '{"kind": "step", "ste')
    assert cut_log(path, 4) == kept
    assert [json.loads(raw) for raw in path.read_text().splitlines()] == kept
    before = path.stat().st_mtime_ns
    assert cut_log(path, 4) == kept
    assert path.stat().st_mtime_ns == before
    assert cut_log(tmp_path / "none.jsonl", 4) == []


def test_what_is_not_finite_becomes_null_and_time_goes_on(tmp_path: Path) -> None:
    log = RunLog(tmp_path, nano(), step=0, live=False)
    log.write("step", 1, {**LINE, "loss/vl": math.nan, "list": [math.inf, 1]})
    log.close()
    (line,) = [json.loads(raw) for raw in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert (line["loss/vl"], line["list"], line["loss"]) == (None, [None, 1], 2.5)
    assert RunLog(tmp_path, nano(), step=1, live=False).elapsed == 12.0
    assert RunLog(tmp_path, nano(), step=0, live=False).elapsed == 0.0


def test_a_line_for_people() -> None:
    text = step_text({"step": 20, **LINE}, 1500)
    assert text == (
        "step 20/1500 loss 2.500 vl 1.000 depth 1.500 lr 1.00e-03 grad 3.00, 1,234 img/s, MFU 50%, "
        "data wait 25% (decode), 3 min 20 s left"
    )


def test_the_panel_shows_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    assert not Display(nano(), enabled=True).active
    display = Display(nano(), enabled=False)
    display.line({"step": 2, **LINE})
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(display)
    text = console.export_text()
    assert "nano · vl+ssl+ground+depth" in text
    assert "step 2 of 6 · 1,234 img/s · MFU 50% · data wait 25% (decode) · 3 min 20 s left" in text
    assert "vl 1.0000   depth 1.5000" in text


def test_trackers_get_numbers_and_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the package: what it is called with, and that nothing is uploaded unasked."""
    calls: list[tuple[str, Any]] = []

    class Run:
        def log(self, values: dict[str, float], step: int) -> None:
            calls.append(("log", (values, step)))

        def finish(self) -> None:
            calls.append(("finish", None))

    def init(**options: Any) -> Run:
        calls.append(("init", options))
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))  # type: ignore[arg-type]
    monkeypatch.delenv("WANDB_MODE", raising=False)
    log = RunLog(tmp_path, nano("log.trackers=wandb"), step=0, live=False)
    log.write("step", 7, {**LINE, "loss/vl": math.nan})
    log.close()
    assert calls[0][1]["mode"] == "offline"
    values, step = calls[1][1]
    assert step == 7
    assert values["step/loss"] == 2.5
    assert "step/loss/vl" not in values
    assert calls[-1] == ("finish", None)


def test_speed_counts_steps_and_not_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    from mtv.train import meter
    from mtv.train.data.loader import Waits

    clock = [100.0]
    monkeypatch.setattr(meter.time, "monotonic", lambda: clock[0])
    m = Meter(batch=32, earlier=50.0)
    for seconds, pause in ((10, 0), (2, 5), (2, 0)):
        clock[0] += seconds
        m.step()
        with m.paused():
            clock[0] += pause
    speed = m.take(Waits(seconds=1.4, read=1.0, decode=0.2, transfer=0.1), left=3)
    assert speed.img_s == pytest.approx(3 * 32 / 14)
    assert speed.data_wait == pytest.approx(0.1)
    assert speed.stage == "read"
    assert speed.eta_s == pytest.approx(3 * 2)
    assert m.elapsed == pytest.approx(50 + 19)
    clock[0] += 4
    m.step()
    quiet = m.take(Waits(seconds=0.1, read=1.0, decode=0.2, transfer=0.1), left=0)
    assert (quiet.img_s, quiet.stage) == (8.0, None)
