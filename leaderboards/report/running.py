"""Speed, memory and cache per result, the commands that make each number again, and what failed or is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtv.leaderboards.frame import Stored, model_labels, model_order, task_order
from mtv.leaderboards.grid import Cell, Column
from mtv.leaderboards.layout import identity
from mtv.leaderboards.report.commands import DATA, command_of
from mtv.leaderboards.report.tables import html_table, number, plain_table
from mtv.leaderboards.report.text import anchor, esc
from mtv.leaderboards.status import status_table

PHASES = ("load_model", "load", "extract", "text", "fit", "score", "intervals")
"""Seconds that get a column, in the order in which they are spent; `score` holds the fitting of heads."""


def ordered(records: Sequence[Stored]) -> list[Stored]:
    """By model, then task, as tables order them."""
    models = {m: k for k, m in enumerate(model_order(records))}
    tasks = {t: k for k, t in enumerate(task_order(records))}
    return sorted(records, key=lambda s: (models[s.model], tasks[s.record.task], s.record.created))


def speed_html(records: Sequence[Stored]) -> str:
    """One line per result."""
    labels = model_labels(records)
    ran = [s for s in ordered(records) if s.record.run.get("seconds")]
    if not ran:
        return "<p>No result says how long it took.</p>\n"
    phases = [p for p in PHASES if any(p in s.record.run["seconds"] for s in ran)]
    columns: list[Column | str] = [
        "task",
        "device",
        Column(key="images_per_s", title="images/s"),
        Column(key="total", title="total [s]"),
        *(Column(key=p, title=f"{p.replace('_', ' ')} [s]") for p in phases),
        Column(key="batch", title="batch"),
        Column(key="host", title="peak memory [MB]"),
        Column(key="device_memory", title="peak GPU memory [MB]"),
        Column(key="hits", title="cache hits"),
        Column(key="misses", title="cache misses"),
    ]
    rows = [(labels[s.model], _speed(s.record.task, s.record.run, phases)) for s in ran]
    table = plain_table("Speed and memory of every result", "model", columns, rows)
    note = (
        '<p class="note">Images per second count pictures that passed the towers; a task that found all its features '
        "in the cache has none. Loading a model counts in every task that used it. Peak memory is that of the process "
        "so far.</p>\n"
    )
    return html_table(table, key="speed-table", filterable=True) + note


def _speed(task: str, run: Mapping[str, Any], phases: Sequence[str]) -> list[Cell | str]:
    seconds, cache, memory = run["seconds"], run.get("cache") or {}, run.get("peak_memory_mb") or {}
    hardware = str(run.get("hardware") or "")
    device = f"{run.get('device', '')}{f', {hardware}' if hardware else ''}"
    processes = run.get("processes", 1)
    return [
        task,
        f"{device}{f', {processes} processes' if processes > 1 else ''}, {run.get('tower_dtype', '')}",
        number(run.get("images_per_s") or None, 1),
        number(sum(seconds.values()), 1),
        *(number(seconds.get(p), 1) for p in phases),
        number(run.get("batch_size") or None, 0),
        number(memory.get("host"), 0),
        number(memory.get("device"), 0),
        number(cache.get("hits"), 0),
        number(cache.get("misses"), 0),
    ]


def commands_html(records: Sequence[Stored]) -> str:
    """The command of every result, by model."""
    labels = model_labels(records)
    out = [
        f"<p><code>{DATA}</code> stands for the folder of the data sets. Files in a spec are named by their last "
        "component: put your own folder in front. What is stored already is skipped; <code>--force</code> measures "
        "again.</p>\n"
    ]
    for k, model in enumerate(model_order(records)):
        own = [s for s in ordered(records) if s.model == model]
        blocks = "\n".join(_command(s, f"{anchor('command', s.record.task)}-{k}-{n}") for n, s in enumerate(own))
        out.append(
            f'<details class="commands">\n<summary>{esc(labels[model])}: {len(own)} commands</summary>\n'
            f"{blocks}\n</details>\n"
        )
    return "".join(out)


def _command(stored: Stored, key: str) -> str:
    commit = str(stored.record.env.get("git_commit") or "")
    made = f"mtv {stored.record.env.get('mtv') or '?'}{f', commit {commit[:8]}' if commit else ''}"
    failed = "failed; " if stored.record.status == "failed" else ""
    return (
        f'<p class="what">{esc(identity(stored))}; {esc(failed + made)}</p>\n'
        f'<pre class="command"><code id="{key}">{esc(command_of(stored.record))}</code></pre>'
    )


def gaps_html(records: Sequence[Stored], unavailable: Mapping[str, str]) -> str:
    """Failed, partial and missing cells with the reason, or the word that there are none."""
    status = status_table(records, unavailable=unavailable)
    gaps = [d for d in status.data if d["state"] != "done"]
    if not gaps:
        return "<p>Every model has a complete result for every task.</p>\n"
    rows = [(d["model"], [d["task"], d["state"], d["reason"] or "not run"]) for d in gaps]
    table = plain_table("Failures and missing cells", "model", ["task", "state", "reason"], rows)
    return html_table(table, key="gaps-table", filterable=True)
