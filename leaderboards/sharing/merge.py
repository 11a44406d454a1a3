"""Several result stores into one, with every decision reported. Sources are only read; a rerun does what is missing."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtv.errors import UsageError
from mtv.leaderboards.sharing.checks import moment
from mtv.leaderboards.sharing.entries import Damaged, Entry, scan, store_labels
from mtv.leaderboards.sharing.placing import Place, put, retire
from mtv.leaderboards.sharing.settling import Conflict, Prefer, settle, superseded


@dataclass(frozen=True, kw_only=True)
class Written:
    """One result that the target did not have."""

    path: Path
    """Its record, relative to the target."""
    source: str
    """Where it came from."""
    missing: tuple[str, ...]
    """Pictures that the source names but no longer has."""


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What a merge did."""

    written: tuple[Written, ...]
    """In the order of writing."""
    present: int
    """Results that the target had and keeps."""
    left_out: tuple[str, ...]
    """Copies, shards, partial results and failures that another result makes needless."""
    conflicts: tuple[Conflict, ...]
    """Open and decided ones."""
    damaged: tuple[Damaged, ...]
    """Records that were skipped, of the target too."""

    @property
    def exit_code(self) -> int:
        """1 if a conflict is open or a record was skipped."""
        return int(bool(self.damaged) or any(not c.decided for c in self.conflicts))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {
            "written": [
                {"file": w.path.as_posix(), "from": w.source, "missing": list(w.missing)} for w in self.written
            ],
            "present": self.present,
            "left_out": list(self.left_out),
            "conflicts": [
                {
                    "results": [e.name for e in c.entries],
                    "metrics": list(c.metrics),
                    "taken": c.taken.name if c.taken else None,
                    "decided": c.decided,
                }
                for c in self.conflicts
            ],
            "damaged": [{"file": d.name, "reason": d.reason} for d in self.damaged],
        }


def merge(sources: Sequence[Path], out: Path, *, place: Place, prefer: Prefer | None = None) -> Merged:
    """Merge result stores.

    Args:
        sources: stores; `out` may be among them. They are only read.
        out: store to write to; what it holds takes part.
        place: where `out` puts a record (`ResultStore(out).path_for`).
        prefer: who wins where numbers differ: the newest, or the first (`out`, then `sources` in order).

    Raises:
        CacheError: a source is no directory, or the disk is full; what was written before is whole.
        UsageError: nothing to merge.
    """
    others = [s for s in sources if s.resolve() != out.resolve()]
    if not others:
        raise UsageError(f"nothing to merge into {out}", "Name at least one store besides --out.")
    labels = store_labels([out, *others])
    entries: list[Entry] = []
    damaged: list[Damaged] = []
    for rank, (root, label) in enumerate(zip([out, *others], labels, strict=True)):
        if rank or root.is_dir():
            more, broken = scan(root, label=label, rank=rank)
            entries += more
            damaged += broken
    return combine(entries, damaged, out, place=place, prefer=prefer)


def combine(
    entries: Sequence[Entry], damaged: Sequence[Damaged], out: Path, *, place: Place, prefer: Prefer | None = None
) -> Merged:
    """Bring results into `out`, whose own are among them with rank 0.

    Args:
        entries: whole results.
        damaged: what was found instead of one; reported only.
        out: store to write to.
        place: as for `merge`.
        prefer: as for `merge`.

    Raises:
        CacheError: the disk is full.
    """
    needless = superseded(entries)
    slots: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        if entry not in needless:
            slots.setdefault(entry.identity, []).append(entry)
    settled = [settle(slot, prefer) for slot in slots.values()]
    kept = {s.kept for s in settled if s.kept is not None}
    conflicts = tuple(s.conflict for s in settled if s.conflict is not None)
    written = []
    # The earliest takes the plain name where two would: the names in a fresh store do not depend on the sources' order.
    for entry in sorted((e for e in kept if e.rank), key=lambda e: (moment(e.record.created), e.identity)):
        path, missing = put(entry, place)
        written.append(Written(path=path.relative_to(out), source=entry.name, missing=tuple(missing)))
    for path in _replaced([e for e in entries if not e.rank], kept) - {out / w.path for w in written}:
        retire(path)
    open_ones = {e.name for c in conflicts for e in c.entries}
    return Merged(
        written=tuple(written),
        present=sum(e.rank == 0 for e in kept),
        left_out=tuple(e.name for e in entries if e.rank and e not in kept and e.name not in open_ones),
        conflicts=conflicts,
        damaged=tuple(damaged),
    )


def _replaced(own: Sequence[Entry], kept: Set[Entry]) -> set[Path]:
    """Records of the target that another store's result took the place of, elsewhere in the target."""
    winners = {e.identity for e in kept if e.rank}
    # What the target's own results made needless before is not this merge's business.
    needless = superseded([*own, *kept]) - superseded(own)
    return {e.path for e in own if e.path and e not in kept and (e.identity in winners or e in needless)}
