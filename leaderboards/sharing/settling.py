"""Which of several results with one identity stays, and when nobody may decide that silently.

Notable choices, all independent of the order in which stores are named (but for `--prefer first`):

* Two results agree if no metric that both have differs in value (to ten digits), unit or n. Intervals follow from
  samples and bootstrap seed, so they decide nothing.
* Among results that agree the fullest stays: complete before partial before failed, with its sample table before
  without (an imported one), more metrics before fewer; then the earliest. What the target store holds wins a tie.
* A conflict leaves the target as it is: its own result stays, or none is taken.
* One whole result replaces the shards of its key; different shards of a key stay side by side.
* A failure stays only where there is no result, and of several the latest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mtv.hashing import sha256_json
from mtv.leaderboards.frame import metrics_of
from mtv.leaderboards.sharing.checks import moment
from mtv.leaderboards.sharing.entries import UNLOADED, Entry
from mtv.results import MetricValue

Prefer = Literal["newest", "first"]
LEVELS = {"failed": 0, "partial": 1, "complete": 2}
PACKAGES = ("mtv", "torch", "timm", "open_clip_torch", "transformers", "numpy", "git_commit")
SHOWN = 3
"""Metrics that a conflict spells out."""


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """Results with one identity and different numbers."""

    entries: tuple[Entry, ...]
    """All of them that disagree, the target's first, then by source."""
    metrics: tuple[str, ...]
    """Metrics that differ, `task/metric`, in the order of the record."""
    taken: Entry | None
    """The one that stands in the target afterwards; None if none does."""
    decided: bool
    """Whether `--prefer` chose it; else the conflict is open."""

    def lines(self) -> list[str]:
        """What happened, in words: results, both values, what made them, and the outcome."""
        record = self.entries[0].record
        more = f" and {len(self.metrics) - SHOWN} more metrics" if len(self.metrics) > SHOWN else ""
        out = [f"{record.protocol['id']} of {record.model_name}: {', '.join(self.metrics[:SHOWN])}{more} differ"]
        for e in self.entries:
            values = ", ".join(f"{k} {_shown(metrics_of(e.record).get(k))}" for k in self.metrics[:SHOWN])
            out.append(f"  {e.name}: {values} ({made_with(e)})")
        others = sorted({str(e.record.data.get("content_sha256"))[:8] for e in self.entries})
        if len(others) > 1:
            out.append(f"  the bytes of the data differ too: {', '.join(others)}")
        outcome = f"taken: {self.taken.name}" if self.taken else "none taken"
        out.append(f"  {outcome}{'' if self.decided else '; choose with --prefer newest or --prefer first'}")
        return out


def _shown(metric: MetricValue | None) -> str:
    if metric is None:
        return "absent"
    return f"{'undefined' if metric.value is None else format(metric.value, '.10g')} {metric.unit} (n {metric.n})"


def made_with(entry: Entry) -> str:
    """When and with which versions a result was made."""
    env = entry.record.env
    parts = [f"{k} {str(env[k])[:8] if k == 'git_commit' else env[k]}" for k in PACKAGES if env.get(k)]
    return ", ".join([entry.record.created, *parts])


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What becomes of all results with one identity."""

    kept: Entry | None
    """The one for the target; None if a conflict leaves none."""
    conflict: Conflict | None
    """Set where numbers differ."""


def settle(entries: Sequence[Entry], prefer: Prefer | None) -> Settled:
    """Choose among results with one identity.

    Args:
        entries: at least one.
        prefer: who wins a conflict; None leaves it open.
    """
    level = max(LEVELS[e.record.status] for e in entries)
    best = sorted((e for e in entries if LEVELS[e.record.status] == level), key=lambda e: (e.rank, e.name))
    if level == 0:
        own = [e for e in best if e.rank == 0]
        return Settled(kept=(own or sorted(best, key=_age, reverse=True))[0], conflict=None)
    metrics = differing(best)
    if not metrics:
        return Settled(kept=min(best, key=lambda e: (*_fullness(e), e.rank != 0, *_age(e))), conflict=None)
    if prefer == "newest":
        taken: Entry | None = max(best, key=_age)
    elif prefer == "first":
        taken = best[0]
    else:
        taken = min((e for e in best if e.rank == 0), key=_fullness, default=None)
    conflict = Conflict(entries=tuple(best), metrics=metrics, taken=taken, decided=prefer is not None)
    return Settled(kept=taken, conflict=conflict)


def _fullness(entry: Entry) -> tuple[bool, int]:
    return not entry.has_samples, -len(entry.record.metrics)


def _age(entry: Entry) -> tuple[Any, ...]:
    # The content decides between results of one second, so that the order of the sources does not.
    return moment(entry.record.created), sha256_json(entry.record.to_json())


def differing(entries: Iterable[Entry]) -> tuple[str, ...]:
    """Metrics on which results disagree; a metric that only some have is no disagreement."""
    seen: dict[str, set[tuple[Any, ...]]] = {}
    for e in entries:
        for name, m in metrics_of(e.record).items():
            value = None if m.value is None else f"{m.value + 0.0:.9e}"
            seen.setdefault(name, set()).add((value, m.unit, m.n))
    return tuple(name for name, values in seen.items() if len(values) > 1)


def superseded(entries: Sequence[Entry]) -> set[Entry]:
    """Entries that others make needless: shards beside a whole result, failures beside a result."""
    results = [e for e in entries if e.record.status != "failed"]
    whole = {e.record.key for e in results if not e.shard}
    by_model = {e.record.key[:2] for e in results}
    by_spec = {(e.record.model.get("spec"), e.record.key[1]) for e in results}
    out = set()
    for e in entries:
        fingerprint, protocol, data = e.record.key
        if e.record.status != "failed":
            needless = bool(e.shard) and e.record.key in whole
        elif fingerprint == UNLOADED:
            needless = (e.record.model.get("spec"), protocol) in by_spec
        else:
            needless = e.record.key in whole or (not data and (fingerprint, protocol) in by_model)
        if needless:
            out.add(e)
    return out
