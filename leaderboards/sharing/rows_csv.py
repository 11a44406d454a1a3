"""Results as CSV, one tidy row per metric: the columns of `mtv.leaderboards.frame.row`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from mtv.leaderboards.frame import Stored, rows


def rows_csv(records: Sequence[Stored]) -> str:
    """A header and one line per (model, task, metric), in table order; absent values are empty.

    Args:
        records: at least one.
    """
    flat = rows(records)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()
