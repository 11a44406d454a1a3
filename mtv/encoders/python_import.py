"""Importing a user's factory from a module or a file, with errors that point into the user's code."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from mtv.encoders.spec import ModelSpec
from mtv.errors import UsageError
from mtv.hashing import sha256_text


def import_factory(spec: ModelSpec) -> tuple[Callable[[], Any], Path | None]:
    """The factory of a `python:` spec and the source file that holds it.

    While the code is imported, its own directory (or the working directory, for a module) is importable too.

    Raises:
        UsageError: no such file, module or factory, or the code fails on import (with its file and line).
    """
    module = _from_file(spec, Path(spec.file)) if spec.file is not None else _from_name(spec, spec.tag or "")
    factory = getattr(module, spec.name, None)
    where = getattr(module, "__file__", None)
    if not callable(factory):
        found = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        what = "is not callable" if factory is not None else "does not exist"
        raise UsageError(f"{spec.text}: {spec.name!r} {what}", f"Callables there: {', '.join(found[:20]) or 'none'}.")
    return factory, Path(where) if where else None


def _from_file(spec: ModelSpec, path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(
            f"{spec.text}: there is no file {path}", "Give the path of a Python file, relative or absolute."
        )
    # A name of our own: the user's file may be called like an installed package.
    name = f"mtv_user_{path.stem}_{sha256_text(str(path.resolve()))[:8]}"
    loader = importlib.util.spec_from_file_location(name, path)
    if loader is None or loader.loader is None:
        raise UsageError(f"{spec.text}: {path} cannot be imported as Python")
    module = importlib.util.module_from_spec(loader)
    sys.modules[name] = module
    with _importable(path.resolve().parent), _explained(spec):
        try:
            loader.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return module


def _from_name(spec: ModelSpec, name: str) -> ModuleType:
    with _importable(Path.cwd()), _explained(spec):
        return importlib.import_module(name)


@contextlib.contextmanager
def _importable(directory: Path) -> Iterator[None]:
    entry = str(directory)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(entry)


@contextlib.contextmanager
def _explained(spec: ModelSpec) -> Iterator[None]:
    try:
        yield
    # The user's code may raise anything; the last frame says where.
    except Exception as e:
        frame = traceback.extract_tb(e.__traceback__)[-1]
        place = f" ({Path(frame.filename).name}:{frame.lineno})"
        raise UsageError(f"{spec.text}: import failed with {type(e).__name__}: {e}{place}") from e
