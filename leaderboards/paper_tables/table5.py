"""Table 5 of the paper from results: whole models on all benchmarks, beside CLIP, SigLIP, SigLIP2 and MTV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mtv.leaderboards.frame import Stored
from mtv.leaderboards.grid import Column, Table
from mtv.leaderboards.paper.cells import METRICS
from mtv.leaderboards.paper_tables.models import Layout, build_models
from mtv.leaderboards.paper_tables.stacked import DIRECTIONS_NOTE


def _samples(stored: Stored) -> str:
    training = stored.record.model.get("training")
    return f"{training['samples']:,} seen" if training else ""


LAYOUT = Layout(
    number="5",
    title="Table 5. Comparison with large-scale vision-language models",
    keys=METRICS,
    lead=Column(key="data", title="Data", numeric=False),
    block=lambda cell: "ViT-B/16" if cell.size == "B/16" else "ViT-L/14 and L/16",
    printed_lead=lambda cell: cell.data,
    measured_lead=_samples,
)


def build(
    records: Sequence[Stored],
    *,
    unavailable: Mapping[str, str] | None = None,
    allow_mixed: bool = False,
    ablations: bool = False,
) -> Table:
    """Lay out Table 5; arguments and errors as of `build_models`."""
    table = build_models(records, LAYOUT, unavailable=unavailable, allow_mixed=allow_mixed, ablations=ablations)
    return replace(table, notes=(*table.notes[:-1], ("", DIRECTIONS_NOTE), table.notes[-1]))
