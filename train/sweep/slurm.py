"""An array job for a Slurm cluster: one task per run of a sweep."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from mtv.atomic import atomic_write_bytes, cannot_write

GRACE_S = 180
"""Seconds between the signal and the end of a job's time: a step, a checkpoint, and some room."""
CPUS = 8
"""Cores per process."""


def script(command: Sequence[str], *, cells: int, processes: int, gpus: bool, logs: Path) -> str:
    """The text of the script.

    Args:
        command: the sweep without `--cell`, with absolute paths.
        cells: runs in all.
        processes: of one run.
        gpus: ask for one per process.
        logs: folder for what the tasks print; it must exist when the job starts.
    """
    wanted = [f"--cpus-per-task={CPUS * processes}", *([f"--gres=gpu:{processes}"] if gpus else [])]
    resources = "\n".join(f"#SBATCH {option}" for option in wanted)
    return f"""#!/bin/bash
# One array task per run of the sweep. Options of sbatch on its command line win over the lines below, for example
#   sbatch --partition=gpu --time=08:00:00 THIS_FILE
# Submitted again, it does only what is missing; a run that was cut off goes on from its last checkpoint.
#SBATCH --job-name=mtv-sweep
#SBATCH --array=1-{cells}
#SBATCH --nodes=1
#SBATCH --ntasks=1
{resources}
#SBATCH --output={logs}/%A_%a.log
# SIGTERM this long before the time is over: the run saves and ends.
#SBATCH --signal=B:TERM@{GRACE_S}
set -euo pipefail
# exec, so that the signal reaches the sweep and not this shell.
exec {shlex.join(command)} --cell "$SLURM_ARRAY_TASK_ID"
"""


def write_script(path: Path, text: str, *, logs: Path) -> None:
    """Write the script, and make the folder of its logs.

    Raises:
        CacheError: cannot be written.
    """
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise cannot_write(logs, e) from e
    atomic_write_bytes(path, text.encode("utf-8"))
