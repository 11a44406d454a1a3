"""`mtv-eval ls models|tasks|protocols|results`: what there is. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mtv.errors import UsageError
from mtv.eval.commands.options import json_option, results_option
from mtv.eval.commands.output import show_rows

if TYPE_CHECKING:
    from mtv.eval.protocol import Protocol


@click.group()
def ls() -> None:
    """List models, tasks, protocols or stored results."""


@ls.command()
@json_option
def models(as_json: bool) -> None:
    """Aliases with parameters, input size and source. Any other spec works too.

    \b
    Spec forms:
      open_clip:ARCH/TAG | open_clip:ARCH@FILE | open_clip:./DIR
      timm:NAME | timm:NAME@FILE
      hf:ORG/NAME[@REV] | hf:./DIR
      python:FILE.py:FACTORY | python:MODULE:FACTORY
    Random weights: timm:NAME@random?seed=0. Options follow `?`: size, mean, std, resize, quick_gelu, cleaning, ...
    """
    from mtv.encoders.aliases import ALIASES

    rows = [
        {
            "alias": a.name,
            "params_m": a.params_m,
            "input": a.size,
            "patch": a.patch,
            "text": "yes" if a.has_text else "no",
            "spec": a.spec,
            "source": a.source,
        }
        for a in ALIASES.values()
    ]
    show_rows(rows, as_json)


def _lacks(protocol: type[Protocol]) -> str:
    """What `paper` of a task needs and this installation does not have, or nothing."""
    from mtv.eval.mmseg.installed import INSTALL, installed

    if protocol.presets.get("paper", {}).get("engine", getattr(protocol, "engine", None)) != "mmseg":
        return ""
    try:
        installed()
    except UsageError as e:
        return f" [paper: {e.message}. {INSTALL}]"
    return ""


@ls.command()
@json_option
def tasks(as_json: bool) -> None:
    """Tasks and suites."""
    from mtv.eval.protocols import PLANNED, PROTOCOLS
    from mtv.eval.suites import SUITE_PRESETS, SUITES

    rows = [
        {"task": name, "presets": ", ".join(cls.presets), "what": (cls.__doc__ or "").splitlines()[0] + _lacks(cls)}
        for name, cls in PROTOCOLS.items()
    ]
    rows += [{"task": name, "presets": "", "what": f"not available yet: {what}"} for name, what in PLANNED.items()]
    suites = [
        {"task": f"suite {name}", "presets": SUITE_PRESETS.get(name, "paper"), "what": ", ".join(members)}
        for name, members in SUITES.items()
    ]
    show_rows([*rows, *suites], as_json)


@ls.command()
@click.argument("task", required=False)
@json_option
def protocols(task: str | None, as_json: bool) -> None:
    """Presets of every task with their hash; with TASK, its fields, values and meaning."""
    from mtv.eval.protocols import PROTOCOLS, protocol_for
    from mtv.fields import field_docs

    if task is None:
        rows = []
        for name, cls in PROTOCOLS.items():
            for preset in cls.presets:
                protocol = protocol_for(name, preset)
                changed = ", ".join(protocol.modified("paper"))
                rows.append({"protocol": protocol.id(preset), "differs from paper by": changed})
    else:
        protocol = protocol_for(task)
        docs = field_docs(type(protocol))
        rows = [{"field": f"{task}.{k}", "default": str(v), "meaning": docs[k]} for k, v in protocol.params.items()]
    show_rows(rows, as_json)


@ls.command(name="results")
@results_option
@json_option
def stored(results_dir: Path, as_json: bool) -> None:
    """Stored results with their headline."""
    from mtv.results import find_records

    rows = []
    for path, record in find_records(results_dir):
        head = record.headline
        value = f"{head[1].value:.2f}" if head and head[1].value is not None else "-"
        rows.append(
            {
                "model": record.model_name,
                "protocol": record.protocol["id"],
                "status": record.status,
                "headline": f"{head[0]} {value}" if head else (record.error or {}).get("message", "")[:60],
                "data": record.data.get("label") or "full set",
                "file": str(path.relative_to(results_dir)),
            }
        )
    show_rows(rows, as_json)
