"""Table 6 of the paper from results: zero-shot relative depth on KITTI and NYUv2, beside depth models as printed.

The paper prints AbsRel alone; the share of pixels within a factor of 1.25 stands beside it for measured models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mtv.leaderboards.frame import Stored
from mtv.leaderboards.grid import Column, Table
from mtv.leaderboards.paper.cells import PaperCell
from mtv.leaderboards.paper_tables.models import Layout, build_models

SPACES_NOTE = (
    "The paper's rows come from several papers and alignment spaces, so they do not compare with each other; the space "
    "of its MTV rows is open. δ1: share of pixels with a ratio to the truth below 1.25; the paper has none."
)


def _block(cell: PaperCell) -> str:
    large = cell.model.startswith("MiDaS") or "-L" in cell.row
    return "large models" if large else "base models"


def _input(stored: Stored) -> str:
    side = (stored.record.protocol.get("params") or {}).get("size") or (stored.record.model.get("image") or {}).get(
        "size"
    )
    return f"{side} × {side}" if side else ""


LAYOUT = Layout(
    number="6",
    title="Table 6. Zero-shot relative depth estimation",
    keys=("rel_kitti/absrel_depth", "rel_nyu/absrel_depth", "rel_kitti/delta1", "rel_nyu/delta1"),
    lead=Column(key="input", title="Input", numeric=False),
    block=_block,
    printed_lead=lambda cell: cell.protocol["input"],
    measured_lead=_input,
)


def build(
    records: Sequence[Stored],
    *,
    unavailable: Mapping[str, str] | None = None,
    allow_mixed: bool = False,
    ablations: bool = False,
) -> Table:
    """Lay out Table 6; arguments and errors as of `build_models`."""
    table = build_models(records, LAYOUT, unavailable=unavailable, allow_mixed=allow_mixed, ablations=ablations)
    return replace(table, notes=(*table.notes[:-1], ("", SPACES_NOTE), table.notes[-1]))
