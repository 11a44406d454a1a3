"""Synergy, attribution and interaction of a study as tables, and the same as one document for machines.

Numbers about gains are in the direction of gain everywhere: positive is better, for RMSE too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mtv.leaderboards.attribution.analysis import StudyAnalysis
from mtv.leaderboards.attribution.cells import ADDED, NAMES, UNDEFINED_LIMIT, Estimate
from mtv.leaderboards.attribution.shapley import Attribution
from mtv.leaderboards.attribution.synergy import PAIRS, AverageSynergy, SynergyValue
from mtv.leaderboards.formats import number_text
from mtv.leaderboards.frame import title_of
from mtv.leaderboards.grid import Cell, Column, Row, Table, decimals
from mtv.leaderboards.layout import Notes, identity

SYNERGY_NOTE = (
    "Synergy (Eq. 4) = (gain of both − larger single gain) / larger single gain; gains are over VL in the direction of "
    "each metric; undefined where neither objective helps alone."
)
RULE_NOTE = (
    "Resamples without an individual gain count as lying beyond both ends of the interval; where they are more than "
    f"{UNDEFINED_LIMIT:.1%} there is none."
)
GAIN_NOTE = "Positive is better in every column, in its unit: for metrics with ↓ it is the fall."


def interval_note(analysis: StudyAnalysis) -> str:
    """What the intervals of this study cover."""
    used = {v.n_seeds for v in analysis.synergies.values() if v.gains}
    used |= {len(a.seeds) for a in analysis.attributions.values() if a.total}
    start = f"Intervals are 95 %, joint bootstrap of {analysis.resamples:,} resamples shared by all cells"
    if not used or max(used) < 2:
        return f"{start}; one training seed: they cover the choice of test samples only, not training."
    counts = " or ".join(str(n) for n in sorted(used))
    return (
        f"{start}, over training seeds, then test samples ({counts} seeds; with K seeds their part is too narrow by "
        "about √((K−1)/K)). Values are of the gains averaged over seeds."
    )


def synergy_table(analysis: StudyAnalysis) -> Table:
    """Pairs by metrics, in per cent, with the average of the paper's Table 4."""
    notes = Notes()
    rows = []
    for pair in PAIRS:
        cells = [_synergy_cell(analysis.synergies[pair, k], notes) for k in analysis.keys]
        cells += [_average_cell(analysis.averages[pair])] if analysis.averages else []
        rows.append(Row(name=_pair(pair), cells=tuple(cells)))
    columns = [Column(key=k, title=title_of(k, None).removesuffix(" ↓")) for k in analysis.keys]
    general = [SYNERGY_NOTE]
    if analysis.averages:
        columns.append(Column(key="average", title="Average"))
        general.append(f"Average over the defined ones of {', '.join(analysis.averaged)}.")
    return Table(
        title=f"Task synergy [%] over VL: {analysis.study.title}",
        head="pair",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=(*notes.pairs(), *(("", n) for n in [*general, RULE_NOTE, interval_note(analysis), *_sources(analysis)])),
        data=tuple(_synergy_records(analysis)),
    )


def attribution_table(analysis: StudyAnalysis) -> Table:
    """Shapley values with intervals beside the increments of the paper's order and their span over all orders."""
    notes = Notes()
    rows: list[Row] = []

    def add(name: str, cell: Callable[[Attribution], Cell]) -> None:
        found = (_or_missing(analysis.attributions[k], cell, notes) for k in analysis.keys)
        rows.append(Row(name=name, cells=tuple(found)))

    for n, objective in enumerate(ADDED):
        for what, cell in (("Shapley value", _shapley), ("paper's order", _in_order), ("least to most", _span)):
            add(f"{NAMES[objective]}: {what}", functools.partial(cell, n))
    add("all three over VL", lambda a: _estimate(a.total, a.unit))
    extra = "The three Shapley values sum to the gain of all three; the paper's order is SSL, Ground, Depth."
    return _gain_table(analysis, "Attribution of the gain over VL", "objective", rows, notes, extra)


def interaction_table(analysis: StudyAnalysis) -> Table:
    """Shapley interaction index of each pair."""
    notes = Notes()
    rows = []
    for pair in (("ssl", "ground"), ("ssl", "depth"), ("ground", "depth")):

        def cell(a: Attribution, pair: tuple[str, str] = pair) -> Cell:
            return _estimate(next(i.index for i in a.interactions if i.pair == pair), a.unit)

        cells = tuple(_or_missing(analysis.attributions[k], cell, notes) for k in analysis.keys)
        rows.append(Row(name=_pair(pair, " × "), cells=cells))
    extra = "What a pair gives beyond the sum of both, averaged over what else is trained; below 0 they overlap."
    return _gain_table(analysis, "Shapley interaction index", "pair", rows, notes, extra)


def records(analysis: StudyAnalysis) -> list[dict[str, Any]]:
    """Every number of a study as flat records with the same keys: synergy, then attribution."""
    return [*_synergy_records(analysis), *_gain_records(analysis)]


def _gain_table(analysis: StudyAnalysis, title: str, head: str, rows: Sequence[Row], notes: Notes, extra: str) -> Table:
    general = [extra, GAIN_NOTE, interval_note(analysis)]
    return Table(
        title=f"{title}: {analysis.study.title}",
        head=head,
        columns=tuple(Column(key=k, title=title_of(k, analysis.metrics[k])) for k in analysis.keys),
        rows=tuple(rows),
        notes=(*notes.pairs(), *(("", n) for n in general)),
        data=tuple(_gain_records(analysis)),
    )


def _pair(pair: Iterable[str], sign: str = " + ") -> str:
    return sign.join(NAMES[o] for o in pair)


def _sources(analysis: StudyAnalysis) -> list[str]:
    """Protocol and data of every task that entered: what a number never travels without."""
    tasks = dict.fromkeys(k.partition("/")[0] for k in analysis.keys)
    cells = analysis.study.cells.values()
    found = ((t, next((c.results[t] for c in cells if t in c.results), None)) for t in tasks)
    return [f"{t}: {identity(s)}." for t, s in found if s is not None]


def _synergy_cell(value: SynergyValue, notes: Notes) -> Cell:
    marks = (notes.mark(value.reason[0].upper() + value.reason[1:] + "."),) if value.reason else ()
    if value.value is None:
        return Cell(text="missing" if value.missing else "undefined", marks=marks)
    ci95 = None if value.ci95 is None else (100 * value.ci95[0], 100 * value.ci95[1])
    return Cell(value=100 * value.value, ci95=ci95, marks=marks)


def _average_cell(average: AverageSynergy) -> Cell:
    counts = ((average.n_undefined, "undefined"), (average.n_missing, "missing"))
    without = ", ".join(f"{n} {word}" for n, word in counts if n)
    if average.value is None:
        return Cell(text="undefined" if average.n_undefined else "missing", label=without)
    ci95 = None if average.ci95 is None else (100 * average.ci95[0], 100 * average.ci95[1])
    label = f"of {average.n_defined}; {without}" if without else f"of {average.n_defined}"
    return Cell(value=100 * average.value, ci95=ci95, label=label)


def _or_missing(attribution: Attribution, cell: Callable[[Attribution], Cell], notes: Notes) -> Cell:
    if attribution.reason:
        return Cell(text="missing", marks=(notes.mark(attribution.reason[0].upper() + attribution.reason[1:] + "."),))
    return cell(attribution)


def _estimate(estimate: Estimate | None, unit: str) -> Cell:
    assert estimate is not None, "a whole lattice has every estimate"
    return Cell(value=estimate.value, ci95=estimate.ci95, decimals=decimals(unit), signed=True)


def _shapley(n: int, a: Attribution) -> Cell:
    return _estimate(a.contributions[n].shapley, a.unit)


def _in_order(n: int, a: Attribution) -> Cell:
    return _estimate(a.contributions[n].paper_order, a.unit)


def _span(n: int, a: Attribution) -> Cell:
    ends = (number_text(v, decimals(a.unit), signed=True) for v in a.contributions[n].span)
    return Cell(text=" … ".join(ends))


def _record(analysis: StudyAnalysis, **values: Any) -> dict[str, Any]:
    empty = {
        "study": analysis.study.title,
        "study_hash": analysis.study.study_hash,
        "samples": analysis.study.samples,
        "quantity": None,
        "objectives": None,
        "metric": None,
        "value": None,
        "lo": None,
        "hi": None,
        "unit": None,
        "n_seeds": None,
        "undefined_share": None,
        "reason": "",
    }
    return {**empty, **values}


def _bounds(ci95: tuple[float, float] | None, factor: float = 1.0) -> dict[str, float | None]:
    return {"lo": ci95[0] * factor if ci95 else None, "hi": ci95[1] * factor if ci95 else None}


def _synergy_records(analysis: StudyAnalysis) -> list[dict[str, Any]]:
    out = []
    for (pair, key), v in analysis.synergies.items():
        out.append(
            _record(
                analysis,
                quantity="synergy",
                objectives="+".join(pair),
                metric=key,
                value=None if v.value is None else 100 * v.value,
                unit="percent",
                n_seeds=v.n_seeds or None,
                undefined_share=v.undefined_share,
                reason=v.reason,
                **_bounds(v.ci95, 100),
            )
        )
    for pair, a in analysis.averages.items():
        out.append(
            _record(
                analysis,
                quantity="average synergy",
                objectives="+".join(pair),
                value=None if a.value is None else 100 * a.value,
                unit="percent",
                reason=f"{a.n_defined} defined, {a.n_undefined} undefined, {a.n_missing} missing",
                **_bounds(a.ci95, 100),
            )
        )
    return out


def _gain_records(analysis: StudyAnalysis) -> list[dict[str, Any]]:
    out = []
    for key, a in analysis.attributions.items():
        if a.total is None:
            out.append(_record(analysis, quantity="attribution", metric=key, unit=a.unit, reason=a.reason))
            continue
        found: list[tuple[str, str, Estimate]] = [("gain of all", "ssl+ground+depth", a.total)]
        found += [("shapley", c.objective, c.shapley) for c in a.contributions]
        found += [("paper order", c.objective, c.paper_order) for c in a.contributions]
        found += [("interaction", "+".join(i.pair), i.index) for i in a.interactions]
        for c in a.contributions:
            found += [
                (f"order {'>'.join(o)}", c.objective, Estimate(value=v, ci95=None)) for o, v in c.by_order.items()
            ]
        out += [
            _record(
                analysis,
                quantity=quantity,
                objectives=objectives,
                metric=key,
                value=e.value,
                unit=a.unit,
                n_seeds=len(a.seeds),
                **_bounds(e.ci95),
            )
            for quantity, objectives, e in found
        ]
    return out
