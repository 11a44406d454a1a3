"""Which mmsegmentation is installed, and importing it without traces.

Two installations with the same import names are accepted (protocol page `segmentation.md`, 5.1): the maintained
distribution, which the extra `[mmseg]` brings, and the last upstream release beside mmcv-lite. Only the latter needs a
stand-in for `mmcv.ops`, whose compiled half mmcv-lite lacks; it is taken away once everything is imported, because it
breaks other uses of `mmcv` if it stays. Versions are read without importing anything.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import sys
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mtv.errors import UsageError

log = logging.getLogger(__name__)

INSTALL = "Install it with: pip install mtv[mmseg]. Or train native heads: --protocol fast."
_OPS = "mmcv.ops"
_MODULES = ("mmseg.models", "mmseg.datasets", "mmseg.evaluation", "mmseg.registry", "mmengine.optim")


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """An installation that was found to work."""

    mmseg: tuple[str, str]
    """Name and exact version of the distribution that brings `mmseg`."""
    mmcv: tuple[str, str]
    """Name and exact version of the one that brings `mmcv`."""
    mmengine: str
    """Name of the one that brings `mmengine`."""
    ops_stub: bool
    """Whether `mmcv.ops` needs a stand-in during the import."""

    def record(self) -> dict[str, str]:
        """Names and versions, for the result."""
        return {name: version(name) for name in (self.mmseg[0], self.mmcv[0], self.mmengine)}


MAINTAINED = Distribution(
    mmseg=("onedl-mmsegmentation", "1.4.2"), mmcv=("onedl-mmcv", "2.3.6"), mmengine="onedl-mmengine", ops_stub=False
)
UPSTREAM = Distribution(
    mmseg=("mmsegmentation", "1.2.2"), mmcv=("mmcv-lite", "2.1.0"), mmengine="mmengine", ops_stub=True
)


def installed() -> Distribution:
    """The installation at hand; imports nothing.

    Raises:
        UsageError: none, or versions that were not found to work; names them.
    """
    for known in (MAINTAINED, UPSTREAM):
        found = {name: _version(name) for name in (known.mmseg[0], known.mmcv[0], known.mmengine)}
        if found[known.mmseg[0]] is None:
            continue
        if (found[known.mmseg[0]], found[known.mmcv[0]]) == (known.mmseg[1], known.mmcv[1]) and found[known.mmengine]:
            return known
        have = ", ".join(f"{name} {number or 'missing'}" for name, number in found.items())
        raise UsageError(
            f"engine=mmseg works with {_pinned(MAINTAINED)}, or with {_pinned(UPSTREAM)}; installed is {have}", INSTALL
        )
    raise UsageError("engine=mmseg needs mmsegmentation, which is not installed", INSTALL)


def import_mmseg(found: Distribution) -> None:
    """Import all parts of mmsegmentation that the engine uses; nothing is printed.

    Raises:
        UsageError: installed, but not importable.
    """
    with _ops_stub() if found.ops_stub else contextlib.nullcontext(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                for name in _MODULES:
                    importlib.import_module(name)
        except (ImportError, AssertionError, AttributeError) as e:
            raise UsageError(
                f"engine=mmseg: {' '.join(found.mmseg)} cannot be imported ({type(e).__name__}: {e})", INSTALL
            ) from e
        finally:
            for line in printed.getvalue().splitlines():
                log.debug("mmsegmentation: %s", line)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, mmengine's logger of the moment is one that hands warnings to ours, and writes nowhere else.

    Without it mmengine makes a logger that prints every message on stdout, and keeps it for the process.
    """
    from mmengine.logging import MMLogger

    if MMLogger.check_instance_created(__name__):  # somebody around us is quiet already
        yield
        return
    logger = MMLogger.get_instance(__name__, logger_name="mmsegmentation")
    logger.handlers[:] = [_Forward(logging.WARNING)]
    try:
        with warnings.catch_warnings():
            # Its defaults, which the engine sets on purpose.
            warnings.filterwarnings("ignore", message="Default ``avg_non_ignore`` is False")
            warnings.filterwarnings("ignore", message="For binary segmentation, we suggest")
            yield
    finally:
        MMLogger._instance_dict.pop(__name__, None)


class _Forward(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log.log(record.levelno, "mmsegmentation: %s", record.getMessage())


@contextlib.contextmanager
def _ops_stub() -> Iterator[None]:
    """`mmcv.ops` whose names are classes that refuse to be made. With a spec, because importlib asks for one."""
    importlib.import_module("mmcv")
    stub: Any = types.ModuleType(_OPS)
    stub.__spec__ = ModuleSpec(_OPS, None)
    stub.__path__ = []  # an import of its submodules is then a clean ImportError
    stub.__getattr__ = _refusing
    before = sys.modules.get(_OPS)
    sys.modules[_OPS] = stub
    try:
        yield
    finally:
        sys.modules.pop(_OPS, None)
        if before is not None:
            sys.modules[_OPS] = before


def _refusing(name: str) -> type:
    """Stands in for the compiled operator `name`."""
    if name.startswith("__"):
        raise AttributeError(name)

    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError(f"mmcv.ops.{name} is a compiled operator, which mmcv-lite does not bring")

    return type(name, (), {"__init__": refuse})


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _pinned(known: Distribution) -> str:
    return f"{'=='.join(known.mmseg)} and {'=='.join(known.mmcv)}"
