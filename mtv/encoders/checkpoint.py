"""Reading weights without running code, and loading them strictly.

.safetensors, or `torch.load(weights_only=True)`: a pickle that wants anything but tensors is refused before it runs.
"""

from __future__ import annotations

import fnmatch
import logging
import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mtv.encoders.records import KeyReport
from mtv.errors import CheckpointError

logger = logging.getLogger(__name__)

TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar")
NESTINGS = ("state_dict", "model_state_dict", "model", "module")
WRAPPER_PREFIXES = ("module.", "_orig_mod.")
_LFS_MARK = b"version https://git-lfs"


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Tensors of a checkpoint file, on the CPU.

    Unwraps the nestings `state_dict`, `model`, ... and the prefixes of data-parallel and compiled wrappers. Bare
    numbers become 0-d tensors, so that strict loading names them.

    Raises:
        CheckpointError: missing, truncated or foreign file, pickled code, NaN or infinity; names file and tensor.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a directory, not a checkpoint file" if path.is_dir() else "does not exist"
        raise CheckpointError(f"checkpoint {path} {what}", "Give the path of a .safetensors, .pt, .pth or .bin file.")
    with path.open("rb") as f:
        head = f.read(len(_LFS_MARK))
    if not head:
        raise CheckpointError(f"checkpoint {path} is empty (0 bytes)", "Copy or download it again.")
    if head == _LFS_MARK:
        raise CheckpointError(f"checkpoint {path} is a Git LFS pointer, not the weights", "Run `git lfs pull` there.")
    if path.suffix == ".safetensors":
        state = _read_safetensors(path)
    elif path.suffix in TORCH_SUFFIXES:
        state = _tensors(_unnest(_read_torch(path), path), path)
    else:
        known = ", ".join((".safetensors", *TORCH_SUFFIXES))
        raise CheckpointError(f"checkpoint {path} has an unknown ending {path.suffix!r}", f"Known endings: {known}.")
    state = _strip_wrappers(state)
    check_finite(state, str(path))
    return state


def check_finite(state: Mapping[str, Tensor], file: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        CheckpointError: names `file` and the first such tensor.
    """
    for name, tensor in state.items():
        if tensor.is_floating_point() and tensor.numel() and not _finite(tensor):
            bad = int((~torch.isfinite(tensor)).sum())
            raise CheckpointError(
                f"{file}: tensor {name!r} holds {bad} values that are NaN or infinite (of {tensor.numel()})",
                "The training run diverged or the file is damaged; choose an earlier checkpoint.",
            )


def _finite(tensor: Tensor) -> bool:
    # NaN and infinity both survive into the extremes, in one pass without the temporaries of `isfinite`.
    low, high = torch.aminmax(tensor.float() if tensor.element_size() == 1 else tensor)
    return bool(torch.isfinite(low) and torch.isfinite(high))


def load_strict(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    file: str,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
) -> KeyReport:
    """Copy `state` into `module`; every key must match in name and shape.

    Args:
        module: receives the weights in place, in its own dtype.
        state: tensors by name.
        file: where they come from, for messages.
        allow_missing: fnmatch globs of parameters that may stay at their initialisation.
        allow_unexpected: fnmatch globs of entries that may be ignored.

    Returns:
        The keys that the globs let through.

    Raises:
        CheckpointError: missing or unexpected keys, shapes or kinds that differ; lists them.
    """
    own = module.state_dict()
    missing = sorted(set(own) - set(state))
    unexpected = sorted(set(state) - set(own))
    refused_missing = [k for k in missing if not _matches(k, allow_missing)]
    refused_unexpected = [k for k in unexpected if not _matches(k, allow_unexpected)]
    wrong = [_mismatch(k, own[k], state[k]) for k in sorted(set(own) & set(state)) if not _fits(own[k], state[k])]
    if refused_missing or refused_unexpected or wrong:
        raise _key_error(file, refused_missing, refused_unexpected, wrong)
    module.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)
    for kind, keys in (("missing (left at initialisation)", missing), ("unexpected (ignored)", unexpected)):
        if keys:
            logger.info("%s: %d keys %s, as allowed: %s", file, len(keys), kind, _listing(keys))
    return KeyReport(missing=tuple(missing), unexpected=tuple(unexpected))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as e:
        raise CheckpointError(f"{path} is no complete safetensors file: {e}", "Copy or download it again.") from e


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # About TorchScript and pickle protocols; both end in an error below, or do not matter.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        raise _refused(path, e) from e
    # A damaged archive surfaces as any of these, depending on where it was cut.
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as e:
        if "TorchScript" in str(e):
            raise CheckpointError(
                f"{path} is a TorchScript archive, which holds code",
                "Use the named tag (open_clip:ViT-B-16-quickgelu/openai), or save its state dict as .safetensors.",
            ) from e
        raise CheckpointError(f"{path} is damaged or no PyTorch checkpoint: {_first_line(e)}", "Copy it again.") from e


def _refused(path: Path, e: Exception) -> CheckpointError:
    with path.open("rb") as f:
        looks_pickled = zipfile.is_zipfile(path) or f.read(1) == b"\x80"
    if not looks_pickled:
        return CheckpointError(f"{path} is no PyTorch checkpoint: {_first_line(e)}", "Check the path.")
    return CheckpointError(
        f"{path} holds pickled objects other than tensors and was refused; nothing in it was executed",
        "Save the state dict alone, best as .safetensors.",
    )


def _unnest(loaded: Any, path: Path) -> Mapping[str, Any]:
    inside = []
    while isinstance(loaded, Mapping):
        key = next((k for k in NESTINGS if isinstance(loaded.get(k), Mapping)), None)
        if key is None:
            break
        inside.append(key)
        loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded:
        where = f" under {'.'.join(inside)!r}" if inside else ""
        raise CheckpointError(
            f"{path} holds {type(loaded).__name__}{where}, not a state dict", "Save `model.state_dict()`."
        )
    if inside:
        logger.info("%s: weights read from entry %r", path.name, ".".join(inside))
    return loaded


def _tensors(loaded: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for key, value in loaded.items():
        if isinstance(value, (bool, int, float)):
            value = torch.tensor(value)
        if not isinstance(value, Tensor) or not isinstance(key, str):
            raise CheckpointError(
                f"{path}: entry {key!r} is {type(value).__name__}, not a tensor",
                f"Save the state dict alone, or under one of the entries {', '.join(NESTINGS)}.",
            )
        out[key] = value.detach()
    return out


def _strip_wrappers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    changed = True
    while changed and state:
        changed = False
        for prefix in WRAPPER_PREFIXES:
            if all(k.startswith(prefix) for k in state):
                state = {k[len(prefix) :]: v for k, v in state.items()}
                changed = True
    return state


def _matches(key: str, globs: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(key, g) for g in globs)


def _fits(own: Tensor, given: Tensor) -> bool:
    return own.shape == given.shape and own.is_floating_point() == given.is_floating_point()


def _mismatch(key: str, own: Tensor, given: Tensor) -> str:
    def describe(t: Tensor) -> str:
        return f"{list(t.shape)} {str(t.dtype).removeprefix('torch.')}"

    return f"{key}: model {describe(own)}, file {describe(given)}"


def _key_error(file: str, missing: list[str], unexpected: list[str], wrong: list[str]) -> CheckpointError:
    parts = [f"{file} does not fit the architecture"]
    for label, items in (("missing", missing), ("unexpected", unexpected), ("of another shape or kind", wrong)):
        if items:
            parts.append(f"{len(items)} {label}: {_listing(items, 4)}")
    return CheckpointError(
        "; ".join(parts),
        "Choose the architecture that the file was made for, or name optional keys: "
        "?allow_missing=head.*&allow_unexpected=head.* (globs, separated by commas).",
    )


def _listing(items: Sequence[str], most: int = 8) -> str:
    return ", ".join(items[:most]) + (f", ... ({len(items) - most} more)" if len(items) > most else "")


def _first_line(e: BaseException) -> str:
    return (str(e) or type(e).__name__).splitlines()[0][:200]
