"""Before the first forward pass: does the request fit the encoder, what is missing, how large, where does it go."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mtv.errors import UsageError
from mtv.eval.features.options import GIB, ExtractOptions, Plan, format_bytes
from mtv.eval.features.request import FeatureRequest
from mtv.eval.features.store import Entry

if TYPE_CHECKING:
    from mtv.encoders.base import Encoder

log = logging.getLogger(__name__)

ROW_OVERHEAD = 160
"""Bytes of id and digest of one row in a shard's header, about."""


def make_plan(
    request: FeatureRequest, encoder: Encoder, entry: Entry | None, digests: dict[str, str], options: ExtractOptions
) -> Plan:
    """Hits, misses and sizes of a request.

    Shapes come from stored rows, or from decoding the first missing picture.

    Raises:
        UsageError: the request does not fit the encoder.
        DataError: that picture cannot be read.
    """
    check_request(request, encoder)
    lookup = entry.lookup(digests) if entry is not None else None
    missing = lookup.missing if lookup is not None else list(digests)
    stored = entry.shards if entry is not None else []
    if stored:
        shapes = {name: stored[-1].outputs[name] for name in request.outputs}
    else:
        from mtv.eval.features.loader import load_sample

        pixels = load_sample(request, missing[0], digests[missing[0]])
        shapes = output_shapes(request, encoder, pixels.shape[-2], pixels.shape[-1])
    row = row_bytes(request, shapes)
    placement = "memory" if entry is None or row * len(digests) > options.cache_limit_gb * GIB else "disk"
    if missing and entry is not None and placement == "memory":
        log.warning(
            "%s: features take %s, more than --cache-limit-gb %g; they are kept in memory for this run only",
            request.data, format_bytes(row * len(digests)), options.cache_limit_gb,
        )  # fmt: skip
    return Plan(
        total=len(digests),
        cached=len(digests) - len(missing),
        stale=len(lookup.stale) if lookup is not None else 0,
        bytes_to_store=row * len(missing),
        row_bytes=row,
        output_shapes=shapes,
        placement=placement,  # type: ignore[arg-type]
    )


def check_request(request: FeatureRequest, encoder: Encoder) -> None:
    """Refuse what the encoder cannot do.

    Raises:
        UsageError: a block that does not exist, a tower in another dtype.
    """
    for layer in request.layers:
        encoder.resolve_layer(layer)
        if layer < 0:
            raise UsageError(f"{request.data}: layers of a request are 0-based, got {layer}")
    actual = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}.get(str(encoder.dtype).removeprefix("torch."))
    if actual != request.tower_dtype:
        raise UsageError(
            f"{request.data} asks for a tower in {request.tower_dtype}, {encoder.info.spec} is loaded in {actual}",
            "Load the model in that dtype; converting a loaded one would not give the same weights.",
        )


def output_shapes(request: FeatureRequest, encoder: Encoder, height: int, width: int) -> dict[str, tuple[int, ...]]:
    """Shape of each output of one sample for prepared pictures of height x width.

    Raises:
        UsageError: sides that are no multiple of the patch, without padding.
    """
    patch = encoder.patch_size
    if not request.pad_to_patch and (height % patch or width % patch):
        raise UsageError(
            f"{request.data}: {height}x{width} is no multiple of patch {patch} of {encoder.info.architecture}",
            f"Choose a size like {max(patch, height // patch * patch)}, or pad_to_patch.",
        )
    tokens = (math.ceil(height / patch), math.ceil(width / patch), encoder.width)
    shapes: dict[str, tuple[int, ...]] = {f"layer{i}": tokens for i in request.layers}
    shapes.update({f"cls{i}": (encoder.width,) for i in request.layers} if request.class_token else {})
    shapes.update({"pooled": (encoder.embed_dim,)} if request.pooled else {})
    shapes.update({"global": (encoder.width,)} if request.global_token else {})
    return shapes


def row_bytes(request: FeatureRequest, shapes: dict[str, tuple[int, ...]]) -> int:
    """Bytes of one stored row."""
    size = 2 if request.storage == "fp16" else 4
    return ROW_OVERHEAD + sum(math.prod(s) * (size if n.startswith("layer") else 4) for n, s in shapes.items())


def check_memory(data: str, plan: Plan, options: ExtractOptions) -> None:
    """Refuse to keep in memory what would take more than half of what is free.

    Raises:
        UsageError: says which option makes it fit.
    """
    free = free_memory_bytes()
    if plan.bytes_to_store <= free // 2:
        return
    whole = plan.row_bytes * plan.total / GIB
    if options.cache_dir is None:
        remedy = "At most half of it is used; keep them on disk instead: --cache DIR."
    else:
        remedy = f"Raise --cache-limit-gb to {math.ceil(whole)} or more to keep them on disk, or use --limit."
    raise UsageError(
        f"{data}: features take {format_bytes(plan.bytes_to_store)}, {format_bytes(free)} of memory are free",
        remedy,
    )


def free_memory_bytes() -> int:
    """Memory that can be had without swapping: of the machine, or of the container when that is less."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = int(next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))) * 1024
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
        free = min(free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return max(0, free)
