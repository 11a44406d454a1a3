"""The flat records of the paper's tables, which csv and json print: one per number, all with the same keys."""

from __future__ import annotations

from typing import Any

from mtv.leaderboards.frame import Stored
from mtv.leaderboards.paper.cells import PaperCell

KEYS = (
    "table",
    "block",
    "row",
    "kind",
    "model",
    "spec",
    "model_fingerprint",
    "recipe",
    "size",
    "data",
    "objectives",
    "samples",
    "seeds",
    "metric",
    "quantity",
    "value",
    "lo",
    "hi",
    "sd_over_seeds",
    "unit",
    "higher_is_better",
    "step",
    "step_lo",
    "step_hi",
    "protocol",
    "protocol_hash",
    "data_fingerprint",
    "label",
    "reason",
    "source",
)
"""Of every flat record, whatever the table."""


def flat(**values: Any) -> dict[str, Any]:
    """One record of csv and json: all of `KEYS`, None where there is nothing to say."""
    assert set(values) <= set(KEYS), set(values) - set(KEYS)
    return {k: values.get(k) for k in KEYS}


def of_paper(cell: PaperCell, **values: Any) -> dict[str, Any]:
    """The record of a printed number."""
    return flat(
        kind="paper",
        model=cell.model,
        size=cell.size,
        data=cell.data,
        objectives="+".join(cell.objectives) or None,
        metric=cell.metric or None,
        quantity=cell.quantity,
        value=cell.value,
        unit=cell.unit,
        higher_is_better=cell.higher_is_better,
        step=cell.step_value,
        protocol=";".join(f"{k}={v}" for k, v in cell.protocol.items()) or None,
        source=f"MTV paper, {cell.where}",
        **values,
    )


def of_result(stored: Stored) -> dict[str, Any]:
    """Where a measured number comes from."""
    return {
        "protocol": stored.record.protocol.get("id"),
        "protocol_hash": stored.record.protocol.get("hash"),
        "data_fingerprint": stored.record.data.get("fingerprint"),
        "label": stored.label,
    }


def bounds(ci95: tuple[float, float] | None, *, prefix: str = "") -> dict[str, float | None]:
    """`lo` and `hi`, or `step_lo` and `step_hi`."""
    lo, hi = ci95 or (None, None)
    return {f"{prefix}lo": lo, f"{prefix}hi": hi}
