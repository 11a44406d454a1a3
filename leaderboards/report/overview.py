"""The head of the page: what was measured, when, with which versions, and which models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtv.leaderboards.attribution.cells import label
from mtv.leaderboards.frame import Stored, model_labels, model_order, task_order
from mtv.leaderboards.grid import Cell, Column
from mtv.leaderboards.report.tables import html_table, number, plain_table
from mtv.leaderboards.report.text import esc


def summary_html(records: Sequence[Stored]) -> str:
    """Counts, dates and versions in two lines."""
    failed = sum(s.record.status == "failed" for s in records)
    tasks = task_order(records)
    dates = sorted(s.record.created for s in records)
    parts = [
        _count(len(model_order(records)), "model"),
        _count(len(tasks), "task"),
        _count(len(records) - failed, "result"),
        *([_count(failed, "failure")] if failed else []),
    ]
    when = _day(dates[0]) if _day(dates[0]) == _day(dates[-1]) else f"{_day(dates[0])} to {_day(dates[-1])}"
    return (
        f'<p class="summary">{esc(", ".join(parts))}, measured {esc(when)} (UTC) with mtv-eval '
        f"{esc(_versions(records))}.</p>\n<p>Tasks: {esc(', '.join(tasks))}.</p>\n"
    )


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"


def _day(created: str) -> str:
    return created.partition("T")[0]


def _versions(records: Sequence[Stored]) -> str:
    found = {f"{s.record.env.get('mtv') or 'of unknown version'}{_commit(s.record.env)}" for s in records}
    return ", ".join(sorted(found))


def _commit(env: Mapping[str, Any]) -> str:
    commit = env.get("git_commit")
    changed = ", with uncommitted changes" if env.get("git_dirty") else ""
    return f" (commit {str(commit)[:8]}{changed})" if commit else ""


def models_html(records: Sequence[Stored]) -> str:
    """One line per model: spec, fingerprint, size, input, training."""
    labels = model_labels(records)
    first = {m: next(s.record.model for s in records if s.model == m) for m in model_order(records)}
    trained = any(m.get("training") for m in first.values())
    columns: list[Column | str] = [
        "spec",
        "fingerprint",
        "architecture",
        Column(key="params", title="parameters [M]"),
        "input",
        "text tower",
        *(["training"] if trained else []),
    ]
    rows = []
    for key, model in first.items():
        cells: list[Cell | str] = [
            str(model.get("spec", "")),
            str(model.get("fingerprint", ""))[:16] or "not loaded",
            str(model.get("architecture") or "–"),
            number(model.get("params_m"), 1),
            _input(model.get("image") or {}),
            "yes" if model.get("text") else "no",
        ]
        if trained:
            cells.append(_training(model.get("training")))
        rows.append((labels[key], cells))
    return html_table(plain_table("Models", "model", columns, rows), key="models-table")


def _input(image: Mapping[str, Any]) -> str:
    return f"{image['size']} px, {image.get('resize', '')}" if image.get("size") else "–"


def _training(training: Mapping[str, Any] | None) -> str:
    if not training:
        return "–"
    seen, total = int(training["samples"]), int(training["samples_total"])
    share = f"{seen:,}" if seen == total else f"{seen:,} of {total:,}"
    return (
        f"{label(training['objectives'])}; recipe {training['recipe']} ({str(training['recipe_hash'])[:8]}), "
        f"{training['size']}, seed {training['seed']}, {share} samples"
    )


def versions_html(records: Sequence[Stored]) -> str:
    """Versions of the libraries, one column per set of versions that occurs."""
    labels = model_labels(records)
    sets: dict[tuple[tuple[str, Any], ...], list[str]] = {}
    for s in records:
        if s.record.env:
            key = tuple((k, v) for k, v in s.record.env.items() if not k.startswith("git_"))
            sets.setdefault(key, []).append(labels[s.model])
    if not sets:
        return "<p>The records name no versions.</p>\n"
    names = list(dict.fromkeys(name for key in sets for name, _ in key))
    heads = ["version"] if len(sets) == 1 else [f"used by {_some(models)}" for models in sets.values()]
    rows = [(name, [str(dict(key).get(name) or "–") for key in sets]) for name in names]
    return html_table(plain_table("Versions", "library", heads, rows), key="versions-table", sortable=False)


def _some(models: Sequence[str]) -> str:
    names = list(dict.fromkeys(models))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
