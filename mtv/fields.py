"""Fields of configuration dataclasses: values from the command line, choices, and the text under each field."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from dataclasses import fields
from typing import Any, Literal

from mtv.errors import UsageError


def convert(value: Any, hint: Any, where: str) -> Any:
    """`value` (often a string from the command line) as the annotated type.

    Raises:
        UsageError: it does not fit; names the field and the type.
    """
    if not isinstance(value, str):
        return tuple(value) if isinstance(value, list) else value
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    try:
        if origin in (typing.Union, types.UnionType):
            if type(None) in args and value.lower() in ("none", "null"):
                return None
            return _first_that_fits(value, [a for a in args if a is not type(None)], where)
        if origin is Literal:
            return _literal(value, args)
        if origin is tuple:
            return tuple(convert(v.strip(), args[0], where) for v in value.split(",") if v.strip())
        if hint is bool:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[value.lower()]
        if hint in (int, float, str):
            return hint(value)
    except (ValueError, KeyError) as e:
        raise UsageError(f"{where}: {value!r} is not a valid {_type_name(hint)}") from e
    raise UsageError(f"{where}: fields of type {_type_name(hint)} cannot be set from text")


def _first_that_fits(value: str, hints: list[Any], where: str) -> Any:
    # str accepts everything, so it must be tried last.
    for hint in sorted(hints, key=lambda h: h is str):
        try:
            return convert(value, hint, where)
        except UsageError:
            continue
    raise ValueError(value)


def _literal(value: str, allowed: tuple[Any, ...]) -> Any:
    for choice in allowed:
        if str(choice).lower() == value.lower():
            return choice
    raise ValueError(value)


def _type_name(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "choice of " + ", ".join(map(str, typing.get_args(hint)))
    return getattr(hint, "__name__", None) or str(hint).replace("typing.", "")


def choices(cls: type) -> dict[str, tuple[Any, ...]]:
    """Fields that take one of a fixed set of values, with that set."""
    hints = typing.get_type_hints(cls)
    return {f.name: typing.get_args(hints[f.name]) for f in fields(cls) if typing.get_origin(hints[f.name]) is Literal}


def field_docs(cls: type) -> dict[str, str]:
    """The docstring under each field, base classes included; what `mtv-eval ls protocols` prints."""
    docs: dict[str, str] = {}
    for base in reversed([c for c in cls.__mro__ if dataclasses.is_dataclass(c)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for node, after in zip(body.body, body.body[1:], strict=False):
            match node, after:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    docs[name] = " ".join(text.split())
    return {f.name: docs.get(f.name, "") for f in fields(cls)}
