"""Which results may stand in one column, and the footnotes that say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mtv.errors import UsageError
from mtv.leaderboards.frame import TITLES, Stored, differences, headline_keys, metrics_of, task_order
from mtv.results import MetricValue

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(kw_only=True)
class Notes:
    """Footnotes in order of first use; equal texts share a mark."""

    texts: list[str] = field(default_factory=list)
    """What has been said so far."""

    def mark(self, text: str) -> str:
        """The mark of `text`: a, b, ..., z, aa, ab, ..."""
        if text not in self.texts:
            self.texts.append(text)
        more, k = divmod(self.texts.index(text), len(_LETTERS))
        return (_LETTERS[more - 1] if more else "") + _LETTERS[k]

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """(mark, text) of all footnotes."""
        return tuple((self.mark(t), t) for t in self.texts)


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One column and the results that may fill it."""

    key: str
    """`task/metric`."""
    task: str
    """Task."""
    groups: list[list[Stored]]
    """Results by (protocol, data), the most frequent setting first."""
    metric: MetricValue | None
    """One of the values, for unit, direction and definition; None when every run failed, or there was none."""
    unavailable: str = ""
    """Why there can be no result yet, where there is none: `task not available`."""

    @property
    def mixed(self) -> bool:
        """Whether the column holds numbers that answer different questions."""
        return len(self.groups) > 1

    @property
    def stored(self) -> list[Stored]:
        """All results of the column."""
        return [s for g in self.groups for s in g]

    @property
    def label(self) -> str:
        """Label that all results share, else empty: then it stands in the cells."""
        labels = {s.label for s in self.stored}
        return labels.pop() if len(labels) == 1 else ""

    def rank(self, stored: Stored) -> int:
        """Position of the result's setting."""
        return next((k for k, g in enumerate(self.groups) if g[0].setting == stored.setting), len(self.groups))


def make_slots(
    records: Sequence[Stored],
    *,
    allow_mixed: bool,
    all_metrics: bool = False,
    unavailable: Mapping[str, str] | None = None,
) -> list[Slot]:
    """The columns of a table, in the fixed order of tasks.

    Args:
        records: from `frame.load`.
        allow_mixed: results of differing protocols or data share a column.
        all_metrics: every metric of the records instead of the headlines.
        unavailable: task to the reason why it cannot have results yet; it gets a column nevertheless.

    Raises:
        UsageError: results of one task differ in protocol or data and `allow_mixed` is off.
    """
    out, reasons = [], unavailable or {}
    for task in task_order(records, reasons):
        usable = [s for s in records if s.record.task == task and s.record.status != "failed"]
        groups = groups_of(usable)
        if not allow_mixed:
            refuse_mixture(task, groups)
        keys = headline_keys(task, usable)
        if all_metrics:
            keys = list(dict.fromkeys([*keys, *(k for s in usable for k in metrics_of(s.record))]))
        for key in keys or [next((k for k in TITLES if k.startswith(f"{task}/")), task)]:
            metric = next((m for s in usable if (m := metrics_of(s.record).get(key))), None)
            reason = "" if usable else reasons.get(task, "")
            out.append(Slot(key=key, task=task, groups=groups, metric=metric, unavailable=reason))
    return out


def groups_of(records: Sequence[Stored]) -> list[list[Stored]]:
    """Results of one task by setting, the most frequent first (then by first appearance)."""
    found: dict[tuple[str, str], list[Stored]] = {}
    for s in sorted(records, key=lambda s: s.record.created):
        found.setdefault(s.setting, []).append(s)
    return sorted(found.values(), key=lambda g: -len(g))


def refuse_mixture(task: str, groups: Sequence[Sequence[Stored]]) -> None:
    """Raise unless all results of `task` share protocol and data.

    Raises:
        UsageError: names two results and the fields in which they differ.
    """
    if len(groups) < 2:
        return
    a, b = groups[0][0].record, groups[1][0].record
    raise UsageError(
        f"{task}: {a.protocol['id']} ({a.model_name}) and {b.protocol['id']} ({b.model_name}) differ in "
        f"{'; '.join(differences(a, b))}",
        "Such numbers do not share a column: narrow the table with --protocol or --model, or mark with --allow-mixed.",
    )


def identity(stored: Stored) -> str:
    """Protocol id, data fingerprint and label of a result: what a number never travels without."""
    label = f" ({stored.label})" if stored.label else ""
    return f"{stored.record.protocol['id']}, data {str(stored.record.data.get('fingerprint', ''))[:8]}{label}"
