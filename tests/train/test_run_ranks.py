"""A job of two processes under torchrun: one is killed, the others say so, the agent starts it again, it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from run_nano import lines

from mtv.train.export import inspect_run

SETTINGS = ("optim.global_batch=32", "samples=384", "log.every=1", "save.every=4", "perf.threads=1")


def test_a_killed_rank_ends_the_job_and_the_agent_goes_on(mini_world: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "err"
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "--max-restarts", "1"]
    command = ["-m", "mtv.train", "run", "nano", "--data", str(mini_world), "--out", str(out), "--device", "cpu"]
    settings = [word for s in SETTINGS for word in ("--set", s)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w") as err:
        job = subprocess.Popen(
            [sys.executable, *launcher, *command, *settings], stderr=err, stdout=err, env=environment
        )
    try:
        deadline = time.monotonic() + 300
        while not (out / "step_0000004").exists():
            assert job.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        first = int((out / "run.lock").read_text().split()[1])
        os.kill(first, signal.SIGKILL)
        assert job.wait(timeout=300) == 0, log.read_text()
    finally:
        job.kill()
        job.wait()
    text = log.read_text()
    assert "error: rank 1: rank 1 lost another rank of the job" in text
    assert f"(exitcode: -9) local_rank: 0 (pid: {first})" in text
    starts = [line["step"] for line in lines(out, "start")]
    assert starts[0] == 0
    assert starts[1] in (4, 8)
    assert [line["step"] for line in lines(out, "step")] == list(range(1, 13))
    assert all(line["processes"] == 2 for line in lines(out, "start"))
    assert inspect_run(out)["step"] == 12
    assert "Grad strides" not in text
