"""A recipe: everything that decides what a run learns, as nested frozen dataclasses.

It is written into the run as resolved; `--set a.b=c` changes one field; two recipes are compared field by field, which
is how a checkpoint of another recipe is refused.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar

from mtv.errors import CheckpointError, UsageError, unknown
from mtv.fields import convert
from mtv.hashing import sha256_json
from mtv.model.config import OBJECTIVES, ModelSize, PrompterConfig, SslConfig, check_objectives
from mtv.train.data.options import DataOptions, ViewOptions
from mtv.train.options import (
    DepthOptions,
    EvalOptions,
    GroundOptions,
    LogOptions,
    OptimOptions,
    PerfOptions,
    SaveOptions,
    SslOptions,
    VlOptions,
    plain,
)

FREE = ("perf", "log", "save", "eval", "data.workers", "data.prefetch", "data.cache", "data.augment", "data.max_bad")
"""Fields that a resumed run may have changed: they alter speed and reports, not what is learnt."""
T = TypeVar("T")
_Tree = dict[str, Any]
"""Field to its new value, or to the tree of a group."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One run."""

    name: str
    """Name in `mtv-train recipes`."""
    model: ModelSize
    """Towers and depth head."""
    tasks: tuple[str, ...] = OBJECTIVES
    """Active objectives: any of vl, ssl, ground, depth."""
    tokenizer: str
    """`mini-bpe-4096`, a directory, or a hub name."""
    samples: int
    """Samples seen over the whole run; the last partial batch is dropped."""
    seed: int = 0
    """Of initial weights, order, and every draw."""
    init: str | None = None
    """A SiglipModel directory to start the towers from; None: fresh weights."""
    heads: SslConfig = field(default_factory=SslConfig)
    """Sizes of the self-supervised heads."""
    prompter: PrompterConfig = field(default_factory=PrompterConfig)
    """The grounding layer."""
    vl: VlOptions = field(default_factory=VlOptions)
    """Image-text loss."""
    ssl: SslOptions = field(default_factory=SslOptions)
    """Self-supervised losses."""
    ground: GroundOptions = field(default_factory=GroundOptions)
    """Region-text loss."""
    depth: DepthOptions = field(default_factory=DepthOptions)
    """Depth loss."""
    views: ViewOptions = field(default_factory=ViewOptions)
    """Crops, colours, masks, regions."""
    data: DataOptions = field(default_factory=DataOptions)
    """Reading and decoding."""
    optim: OptimOptions = field(default_factory=OptimOptions)
    """Optimiser and batch."""
    perf: PerfOptions = field(default_factory=PerfOptions)
    """Speed and memory."""
    log: LogOptions = field(default_factory=LogOptions)
    """Logs."""
    save: SaveOptions = field(default_factory=SaveOptions)
    """Checkpoints."""
    eval: EvalOptions = field(default_factory=EvalOptions)
    """Evaluations on the way."""

    def __post_init__(self) -> None:
        check_objectives(frozenset(self.tasks))
        object.__setattr__(self, "tasks", tuple(t for t in OBJECTIVES if t in self.tasks))
        if self.steps < 1:
            raise UsageError(f"samples={self.samples} is less than one batch of optim.global_batch={self.batch}")

    @property
    def batch(self) -> int:
        """Images per optimiser step."""
        return self.optim.global_batch

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.samples // self.optim.global_batch

    @property
    def objectives(self) -> frozenset[str]:
        """Active objectives as a set."""
        return frozenset(self.tasks)

    @property
    def hash(self) -> str:
        """Of everything that decides what is learnt."""
        return sha256_json(_learnt(self.to_dict()))

    @property
    def study_hash(self) -> str:
        """Of the same without objectives and seed: what all runs of a study of objectives share."""
        return sha256_json(_learnt(self.to_dict(), leave_out=("tasks", "seed")))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        value: dict[str, Any] = plain(dataclasses.asdict(self))
        return value

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], *, where: str = "recipe") -> Recipe:
        """The inverse of `to_dict`.

        Raises:
            CheckpointError: fields that are missing, unknown or out of range; names them.
        """
        try:
            return _build(cls, value)
        except (KeyError, TypeError, AttributeError) as e:
            raise CheckpointError(f"{where}: not a recipe of this version: {e}") from e

    def set(self, assignments: Iterable[str]) -> Recipe:
        """A copy with fields replaced, from `a.b=c` strings. All at once, since fields may have to fit each other.

        Raises:
            UsageError: no `=`, an unknown field (lists them), a value that does not fit.
        """
        wanted: _Tree = {}
        for text in assignments:
            path, equals, value = text.partition("=")
            if not equals:
                raise UsageError(f"--set {text}: expected FIELD=VALUE, for example optim.lr=1e-3")
            _put(wanted, self, path.strip().split("."), value.strip(), path.strip())
        return _replaced(self, wanted)


def differences(saved: Recipe, asked: Recipe) -> list[str]:
    """Fields that decide what is learnt and differ, as `field: saved value -> asked value`."""
    a, b = _flat(saved.to_dict()), _flat(asked.to_dict())
    return [f"{k}: {a.get(k)!r} -> {b.get(k)!r}" for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)
            and not _is_free(k)]  # fmt: skip


def _learnt(value: dict[str, Any], leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields that decide what is learnt, under dotted names."""
    return {k: v for k, v in _flat(value).items() if not _is_free(k) and k not in leave_out}


def _is_free(key: str) -> bool:
    return any(key == f or key.startswith(f"{f}.") for f in FREE)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    out: dict[str, Any] = {}
    for k, v in value.items():
        out |= _flat(v, f"{prefix}.{k}" if prefix else k)
    return out


def _build(cls: type[T], value: Mapping[str, Any]) -> T:
    hints = typing.get_type_hints(cls)
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    wrong = sorted(set(value) ^ known)
    if wrong:
        raise KeyError(f"fields {', '.join(wrong)}")
    made: dict[str, Any] = {}
    for name, item in value.items():
        hint = hints[name]
        if is_dataclass(hint):
            made[name] = _build(hint, item)  # type: ignore[arg-type]
        else:
            made[name] = tuple(item) if isinstance(item, list) else item
    return cls(**made)


def _put(wanted: _Tree, config: Any, path: list[str], value: str, where: str) -> None:
    """Put the converted value where it belongs in the tree of fields."""
    name, rest = path[0], path[1:]
    names = [f.name for f in fields(config)]
    if name not in names:
        raise unknown(f"field of --set {where}", name, names)
    current = getattr(config, name)
    if is_dataclass(current) and not isinstance(current, type):
        if not rest:
            inner = ", ".join(f"{where}.{f.name}" for f in fields(current))
            raise UsageError(f"--set {where}: this is a group; its fields: {inner}")
        _put(wanted.setdefault(name, {}), current, rest, value, where)
        return
    if rest:
        raise UsageError(f"--set {where}: {name} has no fields")
    wanted[name] = convert(value, typing.get_type_hints(type(config))[name], where)


def _replaced(config: T, wanted: _Tree) -> T:
    changes = {k: _replaced(getattr(config, k), v) if isinstance(v, dict) else v for k, v in wanted.items()}
    return replace(config, **changes)  # type: ignore[type-var]
