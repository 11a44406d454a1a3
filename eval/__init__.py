"""The evaluation suite. `from mtv.eval import evaluate` is the whole Python API; importing this package is cheap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtv.eval.api import evaluate

__all__ = ["evaluate"]


def __getattr__(name: str) -> Any:
    # Torch must not be imported for `mtv-eval --help`.
    if name == "evaluate":
        from mtv.eval.api import evaluate

        return evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
