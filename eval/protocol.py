"""Protocols: every knob that changes a number, as a frozen dataclass per task, hashed and printed with the number.

A preset is a dict of overrides on the defaults, so `--set task.field=value` on a preset equals writing it out; the hash
covers the values, never the preset's name. Batch size, workers, device and cache are not part of it.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from mtv.errors import UsageError, unknown
from mtv.fields import choices, convert
from mtv.hashing import sha256_json

TowerDtype = Literal["fp32", "bf16", "fp16"]
P = TypeVar("P", bound="Protocol")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Fields that every task has. Subclasses add their own, and the class attributes below."""

    task: ClassVar[str] = ""
    metric_version: ClassVar[int] = 1
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}}

    limit: int | None = None
    """Use only this many samples, stratified by class or cluster; labelled in every table."""
    tower_dtype: TowerDtype = "fp32"
    """Dtype of the forward pass; features are cast to fp32 before any score."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"{self.task}.limit must be at least 1, got {self.limit}")
        for name, allowed in choices(type(self)).items():
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"{self.task}.{name} must be one of {', '.join(map(str, allowed))}, got {getattr(self, name)!r}"
                )

    def references(self) -> dict[str, str]:
        """SHA-256 of the lists that fields (templates, class names) refer to; in the hash they replace the field, so
        that a user's file counts by its content and not by its path."""
        return {}

    @property
    def params(self) -> dict[str, Any]:
        """All fields as plain values."""
        return dataclasses.asdict(self)

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON of task, metric version, fields and referenced lists."""
        body = {"task": self.task, "metric_version": self.metric_version, **self.params, **self.references()}
        return sha256_json(body)

    def modified(self, preset: str) -> list[str]:
        """`field=value` of every field that differs from `preset`."""
        base, shown = make_protocol(type(self), preset).params, self._shown()
        return [f"{name}={shown[name]}" for name, value in self.params.items() if value != base[name]]

    def describe(self, preset: str) -> dict[str, Any]:
        """The `protocol` part of a result record."""
        return {
            "id": self.id(preset),
            "task": self.task,
            "preset": preset,
            "version": self.metric_version,
            "hash": self.hash,
            "params": {**self._shown(), **{f"{k}_sha256": v for k, v in self.references().items()}},
            "modified": self.modified(preset),
        }

    def _shown(self) -> dict[str, Any]:
        """Fields for the record: a file by its name, without the directories of this machine."""
        return {k: Path(v).name if k in self.references() else v for k, v in self.params.items()}

    def id(self, preset: str) -> str:
        """`<task>/<preset>#<hash8>`."""
        return f"{self.task}/{preset}#{self.hash[:8]}"


def make_protocol(cls: type[P], preset: str = "paper", overrides: Mapping[str, Any] | None = None) -> P:
    """The named preset with overrides; string values are converted to the field's type.

    Raises:
        UsageError: unknown preset (lists them), unknown field (lists them), a value that does not fit.
    """
    if preset not in cls.presets:
        raise unknown(f"protocol of task {cls.task}", preset, cls.presets)
    values = dict(cls.presets[preset])
    hints = typing.get_type_hints(cls)
    for name, value in (overrides or {}).items():
        if name not in {f.name for f in fields(cls)}:
            listing = ", ".join(sorted(f.name for f in fields(cls)))
            raise UsageError(f"unknown field {cls.task}.{name}; fields of {cls.task}: {listing}")
        values[name] = convert(value, hints[name], f"{cls.task}.{name}")
    return cls(**values)


def with_overrides(protocol: P, **changes: Any) -> P:
    """A checked copy with some fields replaced."""
    return replace(protocol, **changes)
