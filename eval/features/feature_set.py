"""Features by sample id, read lazily: what a task scores from."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mtv.errors import CacheError, UsageError
from mtv.eval.features.rows import MemoryRow, Rows, StoredRow

_OPEN_SHARDS = 16
"""Shards that stay mapped: at most 1 GB of a store of any size."""


class FeatureSet:
    """Rows of one request. Everything comes back as float32, whatever dtype is stored, so that scoring is too.

    Rows on disk are read when asked for, through memory-mapped shards. Meant for one scoring thread.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._open: OrderedDict[Path, safe_open] = OrderedDict()

    @property
    def ids(self) -> list[str]:
        """Sample ids in request order."""
        return list(self._rows.places)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the tensors of each sample."""
        return self._rows.outputs

    def __len__(self) -> int:
        return len(self._rows.places)

    def __contains__(self, sample_id: object) -> bool:
        return sample_id in self._rows.places

    def get(self, sample_id: str) -> dict[str, Tensor]:
        """All outputs of one sample: `layer<i>` H,W,D; `pooled` D; `global` C. Float32 on the CPU.

        Raises:
            UsageError: an id that was not part of the request.
        """
        place = self._place(sample_id)
        if isinstance(place, MemoryRow):
            return {name: _own(place.tensors[name][place.row]) for name in self.outputs}
        return {name: _own(self._slice(place, name)) for name in self.outputs}

    def stack(self, ids: Sequence[str] | None = None, output: str = "pooled") -> Tensor:
        """One output of many samples, N,...; float32 on the CPU, in the order of `ids` (all of them by default).

        Raises:
            UsageError: an unknown id or output.
        """
        if output not in self.outputs:
            raise UsageError(f"features hold {', '.join(self.outputs)}, not {output!r}")
        wanted = self.ids if ids is None else list(ids)
        places = [self._place(i) for i in wanted]
        if not places:
            return torch.empty(0)
        stacked: Tensor | None = None
        groups: dict[object, list[int]] = {}
        for position, place in enumerate(places):
            groups.setdefault(place.source, []).append(position)
        for positions in groups.values():
            block = self._block([places[p] for p in positions], output)
            if stacked is None:
                stacked = torch.empty(len(places), *block.shape[1:], dtype=torch.float32)
            if block.shape[1:] != stacked.shape[1:]:
                raise UsageError(f"output {output} differs in shape between samples; read them one by one with get()")
            stacked[positions] = block
        assert stacked is not None
        return stacked

    def _block(self, places: Sequence[MemoryRow | StoredRow], output: str) -> Tensor:
        """Rows of one source, as float32."""
        first = places[0]
        rows = [p.row for p in places]
        if isinstance(first, MemoryRow):
            return first.tensors[output][rows].float()
        if len(rows) * 4 >= first.shard.rows:
            return self._tensor(first, output)[rows].float()
        return torch.stack([self._slice(p, output).float() for p in places if isinstance(p, StoredRow)])

    def _place(self, sample_id: str) -> MemoryRow | StoredRow:
        try:
            return self._rows.places[sample_id]
        except KeyError:
            raise UsageError(f"no features for sample {sample_id!r}: it was not part of the request") from None

    def _slice(self, place: StoredRow, name: str) -> Tensor:
        try:
            return self._shard(place).get_slice(name)[place.row]
        except (SafetensorError, OSError, RuntimeError) as e:
            raise _unreadable(place.shard.path, e) from e

    def _tensor(self, place: StoredRow, name: str) -> Tensor:
        try:
            return self._shard(place).get_tensor(name)
        except (SafetensorError, OSError, RuntimeError) as e:
            raise _unreadable(place.shard.path, e) from e

    def _shard(self, place: StoredRow) -> safe_open:
        path = place.shard.path
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        if len(self._open) >= _OPEN_SHARDS:
            self._open.popitem(last=False)
        self._open[path] = safe_open(str(path), framework="pt")
        return self._open[path]


def _own(x: Tensor) -> Tensor:
    """Float32 that shares nothing with the memory map or with other callers."""
    return x.float() if x.dtype != torch.float32 else x.clone()


def _unreadable(path: Path, e: Exception) -> CacheError:
    return CacheError(f"cannot read {path}: {e}", "It was deleted or replaced during the run; run again.")
