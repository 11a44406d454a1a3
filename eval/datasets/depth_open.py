"""From located pictures and depth maps to a checked `DepthSet`: what the NYUv2 and KITTI readers do alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from mtv.errors import DataError
from mtv.eval.datasets.base import CheckReport, DepthImage, DepthSet, FileRef, fingerprint_of
from mtv.eval.datasets.dense_decode import DepthCheck
from mtv.eval.datasets.dense_headers import MapPair, check_headers
from mtv.eval.datasets.depth_evidence import DepthEvidence, depth_evidence
from mtv.eval.datasets.images import check_depth_header
from mtv.eval.datasets.outcomes import usable, wrong
from mtv.eval.datasets.registry import ReaderInfo
from mtv.hashing import sha256_json

Sizes = Mapping[str, tuple[int, int]]
"""Image id to width, height, in canonical order."""


@dataclass(frozen=True, kw_only=True)
class Located:
    """A picture and its depth map, which need not exist yet."""

    id: str
    """Key of `Dataset.images`."""
    image: FileRef
    """Picture."""
    depth: FileRef
    """Depth PNG."""
    group: str
    """Scene or drive."""
    focal: float | None
    """Pixels."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a reader makes of the frames that were decoded."""

    problems: Sequence[str] = ()
    """What would falsify the number, one sentence each."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """A few words for the label, and the sentence that explains them."""


Judge = Callable[[Sequence[MapPair], Sizes, DepthEvidence], Findings]
"""Looks at the pairs of a set whose headers agree; may decode a few. Raises DataError for a broken file."""


@dataclass(frozen=True, kw_only=True)
class DepthSource:
    """A recognised copy of a depth set."""

    info: ReaderInfo
    """The reader's."""
    split: str
    """Split."""
    root: Path
    """Folder that names are relative to."""
    layout: str
    """In words."""
    located: Sequence[Located]
    """Pictures, in canonical order; at least one."""
    expected: int
    """Pictures of the full split."""
    encoding: Literal["millimetres", "metres_256"]
    """As `DepthSet.depth_encoding`."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """More counts for the report."""
    repair: str
    """What to do when something is wrong."""


def open_depth_set(source: DepthSource, judge: Judge) -> tuple[CheckReport, DepthSet | None]:
    """Check headers of all files, decode a few, and build the set unless something would falsify the number."""
    found = {"images": len(source.located), **source.counts}
    pairs = [MapPair(id=i.id, image=i.image, target=i.depth) for i in source.located]
    sizes, problems = check_headers(pairs, check_depth_header, what="depth map")
    findings = Findings(problems=problems) if problems else _look(source, pairs, sizes, judge)
    expected = {"images": source.expected}
    if findings.problems:
        report = wrong(
            source.info,
            split=source.split,
            root=source.root,
            problems=findings.problems,
            repair=source.repair,
            layout=source.layout,
            found=found,
        )
        return replace(report, expected=expected), None
    items = _items(source, sizes)
    report = usable(
        source.info,
        split=source.split,
        root=source.root,
        layout=source.layout,
        found=found,
        expected=expected,
        unit="images",
        fingerprint=_fingerprint(items, source.encoding),
        notes=tuple(findings.notes.values()),
        labels=tuple(findings.notes),
    )
    return report, DepthSet(
        name=source.info.name,
        split=source.split,
        report=report,
        images={i.id: i.image for i in source.located},
        extra_files={f"{key}.depth": item.depth for key, item in items.items()},
        checks={f"{k}.depth": DepthCheck(encoding=source.encoding, size=i.size) for k, i in items.items()},
        items=items,
        depth_encoding=source.encoding,
    )


def _look(source: DepthSource, pairs: Sequence[MapPair], sizes: Sizes, judge: Judge) -> Findings:
    """Decode a few frames and judge them; a broken one is a problem."""
    try:
        evidence = depth_evidence(pairs, source.encoding)
        findings = judge(pairs, sizes, evidence)
    except DataError as e:
        return Findings(problems=(e.message,))
    return replace(findings, problems=[*_general_problems(evidence), *findings.problems])


def _general_problems(evidence: DepthEvidence) -> list[str]:
    problems = []
    if evidence.levels == 0:
        problems.append(f"{evidence.maps} of {evidence.maps} decoded depth maps hold no depth at all")
    if evidence.mirrored:
        problems.append(
            f"depth is mirrored against the pictures: edges correlate by {evidence.edge_fit_mirrored:.2f} when one of "
            f"them is mirrored, by {evidence.edge_fit:.2f} as they are"
        )
    return problems


def _items(source: DepthSource, sizes: Sizes) -> dict[str, DepthImage]:
    return {
        i.id: DepthImage(id=i.id, group=i.group, depth=i.depth, size=sizes[i.id], focal=i.focal) for i in source.located
    }


def _fingerprint(items: Mapping[str, DepthImage], encoding: str) -> str:
    return fingerprint_of((i.id, sha256_json([list(i.size), i.group, i.focal, encoding])) for i in items.values())
