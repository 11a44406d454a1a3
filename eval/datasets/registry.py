"""Which reader opens which data set, and the two ways in: `open_dataset` and `check_dataset`.

A reader is a module with two names: `INFO`, a `ReaderInfo`, and

    inspect(data: Path, *, split: str, **options) -> tuple[CheckReport, Dataset | None]

which looks at names, headers and annotation files and returns no data set if and only if the verdict is `wrong` or
`missing`. Readers are imported when they are asked for, so listing them costs nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtv.errors import DataError, UsageError, unknown
from mtv.eval.datasets.base import CheckReport, Dataset
from mtv.eval.datasets.manifest_check import compare_with_manifest

READERS: Mapping[str, str] = {
    "imagenet": "mtv.eval.datasets.imagenet",
    "coco": "mtv.eval.datasets.coco",
    "flickr30k": "mtv.eval.datasets.flickr:flickr30k",
    "flickr8k": "mtv.eval.datasets.flickr:flickr8k",
    "navi": "mtv.eval.datasets.navi",
    "spair": "mtv.eval.datasets.spair",
    "sevenscenes": "mtv.eval.datasets.posed_rgbd",
    "cvbench": "mtv.eval.datasets.cvbench",
    "mmvp": "mtv.eval.datasets.mmvp",
    "realworldqa": "mtv.eval.datasets.realworldqa",
    "ade20k": "mtv.eval.datasets.ade20k",
    "camvid": "mtv.eval.datasets.segmentation_sets:camvid",
    "nyu40": "mtv.eval.datasets.segmentation_sets:nyu40",
    "nyuv2": "mtv.eval.datasets.nyuv2",
    "kitti": "mtv.eval.datasets.kitti",
    "pretrain": "mtv.eval.datasets.pretrain",
}
"""Data set name to `module` or `module:object`; the module or object holds `INFO` and `inspect`."""

Progress = Callable[[int, int], None]
"""Called with (files done, files in all)."""


@dataclass(frozen=True, kw_only=True)
class OptionInfo:
    """One option of a reader, as `--set <task>.<name>=<value>` spells it."""

    choices: tuple[str, ...]
    """Allowed values; the first is the default."""
    help: str
    """One line."""


@dataclass(frozen=True, kw_only=True)
class ReaderInfo:
    """What `mtv-eval data` prints about a data set before anything is on disk."""

    name: str
    """Data set name as in `READERS`: imagenet, coco, navi, ..."""
    title: str
    """One line: what it is and which task reads it."""
    default_split: str
    """Split that is opened when none is named."""
    splits: tuple[str, ...]
    """All named splits."""
    options: Mapping[str, OptionInfo] = field(default_factory=dict)
    """Keyword options of `inspect` besides `split`."""
    licence: str
    """One line."""
    how_to_get: str
    """One to three lines: where the set is described and which archives hold it; never a download."""
    layout: str
    """The expected tree with sizes, several lines."""
    expected: Mapping[str, int]
    """Counts of the full default split."""


def reader_info(name: str) -> ReaderInfo:
    """Description of one data set. Raises UsageError for an unknown name."""
    info: ReaderInfo = _reader(name).INFO
    return info


def check_dataset(
    name: str,
    data: Path,
    *,
    split: str | None = None,
    full: bool = False,
    cache: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> CheckReport:
    """What is found under `data`, without raising for a missing or wrong set.

    Args:
        name: key of `READERS`.
        data: root given as --data; the set is looked for in it and up to two levels below.
        split: a split of the reader; None for its default.
        full: decode every file as well (`mtv.eval.datasets.full_check`).
        cache: folder in which outcomes of full checks are kept; None keeps none. Never inside the data root.
        workers: decoding processes of a full check; None for min(8, cores).
        progress: called during a full check.
        options: reader options, `ReaderInfo.options`.

    Raises:
        UsageError: unknown data set, split or option.
        DataError: `data` is no directory.
    """
    report, dataset = _inspect(name, data, split, options)
    if not full or dataset is None:
        return report
    from mtv.eval.datasets.full_check import full_check

    checked = full_check(dataset, data=data, cache=cache, workers=workers, progress=progress)
    return compare_with_manifest(checked, full=True)


def open_dataset(name: str, data: Path, *, split: str | None = None, **options: Any) -> Dataset:
    """The data set, after the quick check.

    Args:
        name: key of `READERS`.
        data: root given as --data; the set is looked for in it and up to two levels below.
        split: a split of the reader; None for its default.
        options: reader options, `ReaderInfo.options`.

    Raises:
        UsageError: unknown data set, split or option.
        DataError: missing or wrong; the message is the whole readable report.
    """
    report, dataset = _inspect(name, data, split, options)
    if dataset is None:
        from mtv.eval.datasets.describe import describe_report

        raise DataError(describe_report(report))
    return dataset


def _inspect(
    name: str, data: Path, split: str | None, options: Mapping[str, Any]
) -> tuple[CheckReport, Dataset | None]:
    reader = _reader(name)
    info: ReaderInfo = reader.INFO
    if split is not None and split not in info.splits:
        raise unknown(f"{name} split", split, info.splits)
    for key, value in options.items():
        _check_option(info, key, value)
    report, dataset = reader.inspect(Path(data), split=split or info.default_split, **options)
    if (dataset is None) != (report.verdict in ("wrong", "missing")):
        raise AssertionError(f"reader {name} returned verdict {report.verdict!r} and a data set: {dataset is not None}")
    report = compare_with_manifest(report, full=False)
    return report, None if report.verdict == "wrong" else dataset


def _check_option(info: ReaderInfo, key: str, value: Any) -> None:
    if key not in info.options:
        if not info.options:
            raise UsageError(f"data set {info.name} has no option {key!r}", "It has only `split`.")
        raise unknown(f"{info.name} option", key, info.options)
    choices = info.options[key].choices
    if value not in choices:
        raise unknown(f"value of {info.name} option {key}", str(value), choices)


def _reader(name: str) -> Any:
    if name not in READERS:
        raise unknown("data set", name, READERS)
    module, _, attribute = READERS[name].partition(":")
    loaded = importlib.import_module(module)
    return getattr(loaded, attribute) if attribute else loaded
