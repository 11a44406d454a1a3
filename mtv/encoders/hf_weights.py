"""Weights of an `hf:` model: transformers reads and renames them, we insist that every key has its place."""

from __future__ import annotations

import fnmatch
import logging
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mtv.encoders.hf_layouts import Layout
from mtv.encoders.hf_quiet import quiet
from mtv.encoders.hf_source import PICKLED, HfFiles
from mtv.encoders.records import KeyReport
from mtv.errors import CheckpointError

logger = logging.getLogger(__name__)

# Position counters that old versions saved as buffers, and scalars of the loss that no cosine sees.
OPTIONAL_UNEXPECTED = ("*.position_ids",)
OPTIONAL_MISSING = ("logit_bias",)


def build_random(layout: Layout, config: Any, *, seed: int) -> Any:
    """The architecture with its own initialisation, from `seed` whatever the caller's generator holds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _class(layout)(config, **dict(layout.arguments))


def load_weights(layout: Layout, config: Any, files: HfFiles, options: Mapping[str, Any]) -> tuple[Any, KeyReport]:
    """Load strictly, in fp32.

    transformers renames keys of older versions, which is why its loader is used; what it would only warn about is an
    error here.

    Raises:
        CheckpointError: unreadable file, pickled code, missing or unexpected keys, shapes that differ.
    """
    from safetensors import SafetensorError

    where = f"{files.directory.resolve().name}/{files.weights}"
    pickled = files.weights in PICKLED
    try:
        # Keys that a file may lack keep their initialisation, which is the same at every load.
        with quiet(bars=False), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, report = _class(layout).from_pretrained(
                files.directory,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
                use_safetensors=not pickled,
                weights_only=True,
                ignore_mismatched_sizes=True,
                **dict(layout.arguments),
            )
    except pickle.UnpicklingError as e:
        raise CheckpointError(
            f"{where} holds pickled objects other than tensors and was refused", "Save it as safetensors."
        ) from e
    # A damaged file surfaces as any of these, depending on where it was cut.
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as e:
        raise CheckpointError(f"{where} cannot be loaded: {_first_line(e)}", "Copy or download it again.") from e
    return model, _judge(report, layout, where, options)


def _class(layout: Layout) -> Any:
    import transformers

    return getattr(transformers, layout.cls)


def _judge(report: Mapping[str, Any], layout: Layout, where: str, options: Mapping[str, Any]) -> KeyReport:
    missing, unexpected = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    mismatched = [f"{k}: file {list(a)}, model {list(b)}" for k, a, b in sorted(report["mismatched_keys"])]
    allowed_missing = (*OPTIONAL_MISSING, *layout.optional_missing, *options.get("allow_missing", ()))
    allowed_unexpected = (*OPTIONAL_UNEXPECTED, *layout.optional, *options.get("allow_unexpected", ()))
    problems = {
        "missing": [k for k in missing if not _matches(k, allowed_missing)],
        "unexpected": [k for k in unexpected if not _matches(k, allowed_unexpected)],
        "of another shape": mismatched,
    }
    found = [f"{len(items)} {label}: {_listing(items)}" for label, items in problems.items() if items]
    if found:
        raise CheckpointError(
            f"{where} does not fit {layout.cls}; " + "; ".join(found),
            "Check config.json, or name optional keys: ?allow_missing=head.*&allow_unexpected=head.* (globs, separated "
            "by commas).",
        )
    if unexpected:
        logger.info("%s: %d keys ignored, as allowed: %s", where, len(unexpected), _listing(unexpected))
    return KeyReport(missing=tuple(missing), unexpected=tuple(unexpected))


def _matches(key: str, globs: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(key, g) for g in globs)


def _listing(items: Sequence[str], most: int = 8) -> str:
    return ", ".join(items[:most]) + (f", ... ({len(items) - most} more)" if len(items) > most else "")


def _first_line(e: BaseException) -> str:
    return (str(e) or type(e).__name__).splitlines()[0][:200]
