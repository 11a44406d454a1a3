"""How small a difference each test set can show: the table behind `mtv-eval power`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mtv.errors import UsageError, unknown
from mtv.leaderboards.frame import TITLES
from mtv.leaderboards.grid import Cell, Column, Row, Table


@dataclass(frozen=True, kw_only=True)
class Size:
    """The full test set of one metric with 0/1 outcomes."""

    task: str
    """Task."""
    metric: str
    """`task/metric`."""
    n: int
    """Independent samples under `assumption`."""
    what: str
    """What a sample is."""


SIZES = (
    Size(task="imagenet", metric="imagenet/top1", n=50_000, what="images"),
    Size(task="knn", metric="knn/top1", n=50_000, what="images of ImageNet val"),
    Size(task="coco", metric="coco/t2i_r1", n=25_010, what="captions, if all were independent"),
    Size(task="coco", metric="coco/t2i_r1", n=5_000, what="images, if the captions of an image agree"),
    Size(task="coco", metric="coco/i2t_r1", n=5_000, what="images"),
    Size(task="flickr30k", metric="flickr30k/t2i_r1", n=5_000, what="captions, if all were independent"),
    Size(task="flickr30k", metric="flickr30k/t2i_r1", n=1_000, what="images, if the captions of an image agree"),
    Size(task="flickr30k", metric="flickr30k/i2t_r1", n=1_000, what="images"),
    Size(task="flickr8k", metric="flickr8k/t2i_r1", n=5_000, what="captions, if all were independent"),
    Size(task="flickr8k", metric="flickr8k/t2i_r1", n=1_000, what="images, if the captions of an image agree"),
    Size(task="flickr8k", metric="flickr8k/i2t_r1", n=1_000, what="images"),
)
GRADED = ("navi", "spair", "sevenscenes", "ade20k", "camvid", "nyu40", "nyuv2", "rel_nyu", "rel_kitti", "vqa")


def power_table(delta: float, tasks: Sequence[str] = (), *, n: int | None = None) -> Table:
    """At which share of discordant samples a difference of `delta` points shows.

    Args:
        delta: difference of two models in percentage points.
        tasks: tasks with 0/1 outcomes per sample; all of them when empty.
        n: instead of the full test sets, one set of this many independent samples (a subset, your own data).

    Raises:
        UsageError: an unknown task, one without 0/1 outcomes per sample, or `delta` out of range.
    """
    from mtv.closed_forms import power

    for task in tasks:
        if task in GRADED:
            raise UsageError(
                f"power of {task} depends on the spread of its graded scores, not on a count alone",
                "Run two models and read the interval of `mtv-eval compare`.",
            )
        if task not in {s.task for s in SIZES}:
            raise unknown("task", task, [*(s.task for s in SIZES), *GRADED])
    sizes = [s for s in SIZES if not tasks or s.task in tasks]
    if n is not None:
        sizes = [Size(task="own", metric="", n=n, what="independent samples")]
    rows, data = [], []
    for size in sizes:
        p = power(delta, size.n)
        shown = tuple(q if p.possible and q >= delta else None for q in (p.visible, p.power80))
        cells = (
            Cell(value=size.n, decimals=0),
            *(Cell(value=v, decimals=2, text="never") for v in shown),
            Cell(value=p.half_width_10, decimals=2),
            Cell(value=p.smallest, decimals=3),
        )
        name = f"{TITLES.get(size.metric, size.metric)} ({size.what})" if size.metric else size.what
        rows.append(Row(name=name.strip(), cells=cells))
        data.append(
            {
                "metric": size.metric,
                "samples": size.what,
                "n": size.n,
                "delta": delta,
                "visible_at_percent_discordant": shown[0],
                "power80_at_percent_discordant": shown[1],
                "half_width_at_10_percent_discordant": p.half_width_10,
                "smallest_visible_delta": p.smallest,
            }
        )
    return Table(
        title=f"When a difference of {delta:g} points shows",
        head="test set",
        columns=tuple(Column(key=k, title=t) for k, t in _COLUMNS),
        rows=tuple(rows),
        notes=tuple(("", t) for t in _NOTES),
        data=tuple(data),
    )


_COLUMNS = (
    ("n", "samples"),
    ("visible", "visible up to [% discordant]"),
    ("power80", "found in 80 % of test sets up to [% discordant]"),
    ("half_width", "± at 10 % discordant [points]"),
    ("smallest", "least visible difference [points]"),
)
_NOTES = (
    "Discordant: right in one model and wrong in the other. With a share q of them the paired 95 % interval "
    "has half-width 1.96 sqrt(q / n); a difference is visible while that stays below it.",
    "The least visible difference is six samples, all in favour of one model (exact p = 0.03).",
)
