"""The command that makes a number again, from nothing but its record.

`DATA` stands for the folder of the data sets. A spec names files by their last component, because records hold no
directories: whoever repeats it puts their own in front.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from mtv.results import TaskResult

DATA = "DATA"
OPTION = "option: "
"""How `EncoderInfo.sources` marks a field that the user set."""


def command_of(record: TaskResult, out: str = "results") -> str:
    """The `mtv-eval run` command of one result, ready for a shell.

    Args:
        record: complete, partial or failed.
        out: result store of the repetition.
    """
    protocol, params = record.protocol, record.protocol.get("params", {})
    words = ["mtv-eval", "run", "-m", _model(record.model), "-t", record.task, "--data", DATA, "--out", out]
    words += ["--protocol", str(protocol.get("preset", "paper"))]
    if params.get("tower_dtype", "fp32") != "fp32":
        words += ["--dtype", str(params["tower_dtype"])]
    if params.get("limit") is not None:
        words += ["--limit", str(params["limit"])]
    for text in [*_fields(record), *_model_options(record.model)]:
        words += ["--set", text]
    if record.run.get("seed"):
        words += ["--seed", str(record.run["seed"])]
    return shlex.join(words)


def _model(model: dict[str, Any]) -> str:
    """Alias, `NAME=SPEC` or spec: what gives the model the same name and the same weights again."""
    from mtv.encoders.aliases import ALIASES

    alias, spec = model.get("alias"), str(model.get("spec", ""))
    if not alias:
        return spec
    known = ALIASES.get(alias)
    if known is None:
        return f"{alias}={spec}"
    # A built-in alias cannot be given to another spec; options after `?` belong to the spec.
    return f"{alias}{spec[len(known.spec) :]}" if spec.startswith(known.spec) else spec


def _fields(record: TaskResult) -> Iterator[str]:
    """`task.field=value` of every protocol field that differs from the preset."""
    params = record.protocol.get("params", {})
    for text in record.protocol.get("modified", ()):
        name = str(text).partition("=")[0]
        if name not in ("limit", "tower_dtype"):
            yield f"{record.task}.{name}={_spelled(params.get(name))}"


def _spelled(value: Any) -> str:
    """As `--set` reads it."""
    if isinstance(value, (list, tuple)):
        return ",".join(_spelled(v) for v in value)
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _model_options(model: dict[str, Any]) -> Iterator[str]:
    """`scope.field=value` of every model option that was set beside the spec."""
    in_spec = set(str(model.get("spec", "")).partition("?")[2].split("&"))
    for field, source in (model.get("sources") or {}).items():
        given = str(source).removeprefix(OPTION)
        if given != source and given not in in_spec:
            scope = field.split(".")[0]
            yield f"{scope if scope in ('image', 'text') else 'model'}.{given}"
