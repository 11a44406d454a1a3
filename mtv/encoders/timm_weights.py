"""Where the weights of a timm model come from, and how they enter it: strictly, with timm's own key conversion."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mtv.encoders.checkpoint import load_strict, read_state_dict
from mtv.encoders.hub import hub_file, not_cached
from mtv.encoders.records import KeyReport
from mtv.encoders.spec import ModelSpec
from mtv.errors import CheckpointError, UsageError, unknown

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TimmEntry:
    """What timm's registry says about a name."""

    architecture: str
    """Name without tag."""
    tag: str | None
    """The tag that the user named, or the architecture's default one."""
    named: bool
    """Whether the user named the tag."""
    cfg: Mapping[str, Any]
    """timm's `pretrained_cfg`, as a dict; empty where timm has none."""


def timm_entry(spec: ModelSpec) -> TimmEntry:
    """Look a timm name up in the installed registry.

    Raises:
        UsageError: unknown architecture or tag, with the nearest spellings.
    """
    import timm

    architecture, dot, tag = spec.name.partition(".")
    if not timm.is_model(architecture):
        raise unknown("timm model", architecture, timm.list_models())
    try:
        cfg = timm.get_pretrained_cfg(spec.name)
    except RuntimeError:
        tags = [n.partition(".")[2] for n in timm.list_models(f"{architecture}.*", pretrained=True)]
        raise unknown(f"tag of timm model {architecture}", tag, tags) from None
    fields = cfg.to_dict() if cfg is not None else {}
    return TimmEntry(architecture=architecture, tag=tag or fields.get("tag") or None, named=bool(dot), cfg=fields)


def find_weights(spec: ModelSpec, entry: TimmEntry, *, download: bool) -> Path:
    """The checkpoint file: the spec's own, or the hub's from the local cache (fetched only with `download`).

    Raises:
        UsageError: timm publishes no hub weights under this name.
        CheckpointError: not in the cache; says the two ways out.
    """
    if spec.file is not None:
        return Path(spec.file)
    repo = entry.cfg.get("hf_hub_id")
    if not repo or entry.cfg.get("custom_load") == "hf":
        raise UsageError(
            f"{spec.text}: timm publishes no hub weights for it" + ("" if entry.tag else " (no tag)"),
            f"Use a local file, timm:{spec.name}@FILE, or random weights, timm:{spec.name}@random.",
        )
    own = entry.cfg.get("hf_hub_filename")
    names = (str(Path(own).with_suffix(".safetensors")), own) if own else ("model.safetensors", "pytorch_model.bin")
    for name in dict.fromkeys(names):
        found = hub_file(repo, name, download=download)
        if found is not None:
            return found
    raise not_cached(spec, repo)


def config_beside(weights: Path, entry: TimmEntry) -> dict[str, Any] | None:
    """`pretrained_cfg` of the timm `config.json` in the folder of the weights, if that is this architecture's.

    Raises:
        CheckpointError: the file is no JSON object.
    """
    path = weights.parent / "config.json"
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise CheckpointError(f"{path} beside the weights is no JSON: {e}", "Repair or move it.") from e
    if not isinstance(config, dict) or not isinstance(config.get("pretrained_cfg"), dict):
        return None
    if config.get("architecture") not in (None, entry.architecture):
        logger.warning("%s describes %s, not %s; it is not used", path, config["architecture"], entry.architecture)
        return None
    return dict(config["pretrained_cfg"])


def load_weights(
    model: nn.Module, path: Path, entry: TimmEntry, *, allow_missing: tuple[str, ...], allow_unexpected: tuple[str, ...]
) -> KeyReport:
    """Read `path` into `model`, which has no classification head; the head's entries may stay unused.

    Raises:
        CheckpointError: from reading or strict loading; or position embeddings made for another grid.
    """
    state = read_state_dict(path)
    heads = entry.cfg.get("classifier") or "head"
    optional = tuple(f"{h}.*" for h in ([heads] if isinstance(heads, str) else heads))
    own = model.state_dict()
    if not set(own) & set(state) or (set(own) - set(state) and not allow_missing):
        state = _convert(model, state, path)
    return load_strict(
        model, state, file=path.name, allow_missing=allow_missing, allow_unexpected=(*optional, *allow_unexpected)
    )


def _convert(model: nn.Module, state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Rename foreign keys (open_clip, DINOv2, ... checkpoints) with the filter that timm keeps for the architecture."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    _check_grid(model, state, path)
    try:
        converted = dict(convert(dict(state), model))
    # The filter assumes its own formats; on others it fails anywhere, and strict loading then says what is wrong.
    except Exception as e:
        logger.debug("%s: timm's key conversion failed: %s", path.name, e)
        return state
    if set(converted) != set(state):
        logger.info("%s: keys converted by timm's checkpoint_filter_fn", path.name)
    return converted


def _check_grid(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """The filter would silently resample position embeddings of another input size; strict loading must not."""
    patches = getattr(getattr(model, "patch_embed", None), "num_patches", None)
    prefix = getattr(model, "num_prefix_tokens", 0)
    for name, tensor in state.items():
        if patches is None or not name.endswith(("pos_embed", "visual.positional_embedding")):
            continue
        surplus = tensor.shape[-2] - patches
        if tensor.ndim in (2, 3) and not 0 <= surplus <= prefix:
            raise CheckpointError(
                f"{path.name}: {name!r} has {tensor.shape[-2]} positions, the architecture {patches} + {prefix} prefix",
                "The file was made for another input size; choose the architecture of that size. "
                "Other sizes are then interpolated at run time.",
            )
