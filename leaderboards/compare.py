"""Two models on the same samples: difference, interval, discordant counts, p and Holm-adjusted p.

Works on the per-sample tables alone, so no model is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mtv.errors import CacheError, UsageError, unknown
from mtv.leaderboards.frame import Stored, differences, headline_keys, metrics_of, model_labels, task_order, title_of
from mtv.leaderboards.grid import INTERVAL_NOTE, Cell, Column, Row, Table, decimals
from mtv.leaderboards.layout import identity
from mtv.recipes import Recipe
from mtv.results import MetricValue, read_samples

if TYPE_CHECKING:
    from mtv.stats import PairedDifference

METHODS = {"mcnemar": "exact McNemar", "bootstrap": "paired cluster bootstrap", "none": "n/a"}


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One metric of both models."""

    key: str
    """`task/metric`."""
    metric: MetricValue
    """A's stored value, for unit and direction."""
    a: Stored
    """Result of A."""
    b: Stored
    """Result of B."""
    difference: PairedDifference
    """B minus A."""
    p_holm: float | None = None
    """p adjusted over all rows of the comparison."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that two models share."""

    name_a: str
    """Label of A."""
    name_b: str
    """Label of B."""
    rows: tuple[Compared, ...]
    """One per metric, in table order."""
    skipped: tuple[str, ...]
    """Tasks that could not be compared, one sentence each."""


def select_model(records: Sequence[Stored], name: str) -> list[Stored]:
    """The results of one model, named by alias, spec or the first six or more digits of its fingerprint.

    Raises:
        UsageError: unknown, or several models of that name; lists their fingerprints.
    """
    found = [s for s in records if name in (s.record.model.get("alias"), s.record.model.get("spec"))]
    if not found and len(name) >= 6:
        found = [s for s in records if s.model[1].startswith(name)]
    if not found:
        names = {n for s in records for n in (s.record.model.get("alias"), s.record.model.get("spec")) if n}
        raise unknown("model in this result store", name, names)
    fingerprints = sorted({s.model[1] for s in found})
    if len(fingerprints) > 1:
        listing = ", ".join(f[:12] for f in fingerprints)
        raise UsageError(
            f"{name} names {len(fingerprints)} models with other weights or input: {listing}", "Use a fingerprint."
        )
    return found


def compare(
    records_a: Sequence[Stored],
    records_b: Sequence[Stored],
    *,
    all_metrics: bool = False,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Pair the results of two models task by task.

    Args:
        records_a: results of one model, as from `select_model`.
        records_b: results of the other.
        all_metrics: every metric instead of the headlines.
        n_resamples: resamples of the paired bootstrap.
        seed: its seed.

    Raises:
        UsageError: nothing in common; differing protocols, data, samples or metric definitions, naming the fields.
        CacheError: a sample table is missing, or does not give the recorded value.
    """
    rows: list[Compared] = []
    skipped: list[str] = []
    labels = model_labels([*records_a, *records_b])
    for task in task_order([*records_a, *records_b]):
        own_a, own_b = ([s for s in r if s.record.task == task] for r in (records_a, records_b))
        if reason := _unpaired(own_a, own_b):
            skipped.append(f"{task}: {reason}.")
            continue
        for a, b in _same_setting(task, own_a, own_b):
            rows += _rows(a, b, all_metrics=all_metrics, n_resamples=n_resamples, seed=seed)
    if not rows:
        raise UsageError(f"nothing to compare: {' '.join(skipped) or 'no results'}")
    return Comparison(
        name_a=labels[records_a[0].model],
        name_b=labels[records_b[0].model],
        rows=tuple(_adjusted(rows)),
        skipped=tuple(skipped),
    )


def _unpaired(own_a: Sequence[Stored], own_b: Sequence[Stored]) -> str:
    for side, own in (("A", own_a), ("B", own_b)):
        if not own:
            return f"no result of {side}"
        if all(s.record.status == "failed" for s in own):
            return f"failed for {side}"
    return ""


def _same_setting(task: str, own_a: Sequence[Stored], own_b: Sequence[Stored]) -> list[tuple[Stored, Stored]]:
    whole_a, whole_b = ([s for s in own if s.record.status != "failed"] for own in (own_a, own_b))
    pairs = [(a, b) for a in whole_a for b in whole_b if a.setting == b.setting and a.shard == b.shard]
    if pairs:
        return pairs
    a, b = whole_a[0], whole_b[0]
    what = "; ".join(differences(a.record, b.record)) or f"shard: {a.shard or 'none'} vs {b.shard or 'none'}"
    raise UsageError(
        f"{task}: {identity(a)} of {a.record.model_name} and {identity(b)} of {b.record.model_name} differ in {what}",
        "A paired comparison needs one protocol and one data set: run one model again under the other's settings.",
    )


def _rows(a: Stored, b: Stored, *, all_metrics: bool, n_resamples: int, seed: int) -> list[Compared]:
    from mtv.stats import paired_difference

    task, of_a, of_b = a.record.task, metrics_of(a.record), metrics_of(b.record)
    keys = list(of_a) if all_metrics else [k for k in headline_keys(task, [a]) if k in of_a]
    recipes = {k: Recipe.from_dict(m.recipe) for k, m in of_a.items()}
    if other := [k for k in keys if k not in of_b or of_b[k].recipe != of_a[k].recipe]:
        raise UsageError(f"{other[0]} is defined differently in the two results", "Run the older one again.")
    table_a, table_b = read_samples(a.path, a.record), read_samples(b.path, b.record)
    out = []
    for key in keys:
        d = paired_difference(recipes, key, table_a, table_b, n_resamples=n_resamples, seed=seed)
        for stored, metric, value in ((a, of_a[key], d.a), (b, of_b[key], d.b)):
            _check_value(stored, key, metric.value, value)
        out.append(Compared(key=key, metric=of_a[key], a=a, b=b, difference=d))
    return out


def _check_value(stored: Stored, key: str, recorded: float | None, value: float | None) -> None:
    agree = recorded is value is None or (
        recorded is not None and value is not None and abs(recorded - value) <= 1e-6 * max(1.0, abs(recorded))
    )
    if not agree:
        raise CacheError(
            f"{stored.record.protocol['id']} of {stored.record.model_name}: {key} is {recorded} in the record, but its "
            f"sample table gives {value}",
            "The record was edited or made by another version; run the task again.",
        )


def _adjusted(rows: Sequence[Compared]) -> list[Compared]:
    from mtv.stats import holm

    tested = [(k, r.difference.p) for k, r in enumerate(rows) if r.difference.p is not None]
    adjusted = dict(zip((k for k, _ in tested), holm([p for _, p in tested]), strict=True))
    return [replace(r, p_holm=adjusted.get(k)) for k, r in enumerate(rows)]


def comparison_table(comparison: Comparison) -> Table:
    """The comparison as a table; bold differences have a Holm-adjusted p below 0.05."""
    titles = (comparison.name_a, comparison.name_b, "B − A", "n01 / n10", "p", "p (Holm)")
    columns = tuple(
        Column(key=k, title=t) for k, t in zip(("a", "b", "delta", "discordant", "p", "p_holm"), titles, strict=True)
    )
    tests = len([r for r in comparison.rows if r.p_holm is not None])
    notes = [
        f"A = {comparison.name_a}, B = {comparison.name_b}; n01: wrong in A, right in B; n10: right in A, wrong in B.",
        f"p is two-sided: exact McNemar where each sampling unit has one 0/1 outcome, else paired cluster bootstrap; "
        f"Holm-adjusted over the {tests} tests shown.",
        *dict.fromkeys(f"{r.a.record.task}: {identity(r.a)}." for r in comparison.rows),
        *comparison.skipped,
        INTERVAL_NOTE,
    ]
    return Table(
        title=f"{comparison.name_b} against {comparison.name_a}",
        head="metric",
        columns=columns,
        rows=tuple(Row(name=title_of(r.key, r.metric), cells=_cells(r)) for r in comparison.rows),
        notes=tuple(("", n) for n in notes),
        best="difference with a Holm-adjusted p below 0.05",
        data=tuple(_flat(r, comparison) for r in comparison.rows),
    )


def _cells(row: Compared) -> tuple[Cell, ...]:
    d, digits = row.difference, decimals(row.metric.unit)
    counts = "–" if d.n01 is None else f"{d.n01} / {d.n10}"
    clear = row.p_holm is not None and row.p_holm < 0.05
    return (
        Cell(value=d.a, decimals=digits, text="n/a"),
        Cell(value=d.b, decimals=digits, text="n/a"),
        Cell(
            value=d.delta, ci95=d.ci95, decimals=digits + (1 if digits < 3 else 0), signed=True, best=clear, text="n/a"
        ),
        Cell(text=counts),
        Cell(text=p_text(d.p)),
        Cell(text=p_text(row.p_holm)),
    )


def p_text(p: float | None) -> str:
    """Three digits, `<0.001` below; `n/a` without a test."""
    if p is None:
        return "n/a"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _flat(row: Compared, comparison: Comparison) -> dict[str, Any]:
    d = row.difference
    return {
        "metric": row.key,
        "model_a": comparison.name_a,
        "model_b": comparison.name_b,
        "a": d.a,
        "b": d.b,
        "delta": d.delta,
        "lo": d.ci95[0] if d.ci95 else None,
        "hi": d.ci95[1] if d.ci95 else None,
        "unit": row.metric.unit,
        "higher_is_better": row.metric.higher_is_better,
        "n01": d.n01,
        "n10": d.n10,
        "p": d.p,
        "p_holm": row.p_holm,
        "method": METHODS[d.method],
        "n": d.n,
        "n_clusters": d.n_clusters,
        "protocol": row.a.record.protocol.get("id"),
        "protocol_hash": row.a.record.protocol.get("hash"),
        "data_fingerprint": row.a.record.data.get("fingerprint"),
        "label": row.a.label,
    }
