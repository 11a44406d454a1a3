"""Full float32 for scoring: no TF32, no bf16 passes inside a matmul, no autocast; and normalisation in float32.

torch keeps the precision of float32 matmuls in three places that must not contradict each other: a setting per operator
(`fp32_precision`, torch 2.9 and later), its parents (all operators of a back end, all back ends), and the legacy
switches (`set_float32_matmul_precision`, `allow_tf32`), whose getters raise once they disagree with the new ones.
Reading a setting returns the inherited value, not the stored one. `fp32_matmul` therefore reads the stored values with
the parents lifted, and puts back exactly those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from mtv.errors import NumericalError

_EPS = 1e-8
_LEAVES = (("cuda", "matmul"), ("mkldnn", "matmul"))
_CUDNN_LEAVES = (("cuda", "conv"), ("cuda", "rnn"))
_PARENTS = (("generic", "all"), ("cuda", "all"), ("mkldnn", "all"))


@contextmanager
def fp32_matmul() -> Iterator[None]:
    """Inside, float32 matmuls and convolutions compute in IEEE float32 on CPU and CUDA, and autocast is off.

    The caller's settings come back exactly as they were, inherited or explicit, legacy or new, also after an exception.
    The settings are global to the process: another thread that changes them meanwhile loses its change. Usable as a
    decorator.
    """
    with ExitStack() as stack:
        stack.callback(_enter_new_api() if _has_new_api() else _enter_legacy_api())
        for device in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


def _has_new_api() -> bool:
    return hasattr(torch._C, "_set_fp32_precision_setter")


def _get(backend: str, op: str) -> str:
    return torch._C._get_fp32_precision_getter(backend, op)


def _set(backend: str, op: str, value: str) -> None:
    torch._C._set_fp32_precision_setter(backend, op, value)


def _enter_new_api() -> Callable[[], None]:
    """Switch to IEEE; returns what undoes it."""
    parents = []
    for key in _PARENTS:  # from the top down, so that each value read is the stored one
        parents.append((*key, _get(*key)))
        _set(*key, "none")
    leaves = [(*key, _get(*key)) for key in _LEAVES]
    legacy = _stored_legacy_precision()

    torch.set_float32_matmul_precision("highest")
    for key in _LEAVES:
        _set(*key, "ieee")
    # cuDNN's operators may hold a default that cannot be written back, so the parent overrides it where that suffices.
    _set("cuda", "all", "ieee")
    cudnn = [(*key, _get(*key)) for key in _CUDNN_LEAVES if _get(*key) != "ieee"]
    for backend, op, _ in cudnn:
        _set(backend, op, "ieee")

    def undo() -> None:
        for key in _PARENTS:
            _set(*key, "none")
        torch.set_float32_matmul_precision(legacy)  # overwrites the operators, so it comes before them
        for setting in (*leaves, *cudnn, *parents):
            _set(*setting)

    return undo


def _stored_legacy_precision() -> str:
    """The legacy value, with parents lifted. Its getter refuses while the operators disagree: try what agrees."""
    candidates: tuple[tuple[str, str] | None, ...] = (None, ("ieee", "ieee"), ("tf32", "tf32"), ("tf32", "bf16"))
    for candidate in candidates:
        if candidate is not None:
            for key, value in zip(_LEAVES, candidate, strict=True):
                _set(*key, value)
        try:
            return torch.get_float32_matmul_precision()
        except RuntimeError:
            continue
    raise NumericalError(
        "torch refuses to tell its float32 matmul precision",
        "Set it once with torch.set_float32_matmul_precision('highest') before scoring.",
    )


def _enter_legacy_api() -> Callable[[], None]:
    """The same for torch before 2.9."""
    precision = torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False

    def undo() -> None:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = cudnn

    return undo


def check_finite(x: Tensor, ids: Sequence[str] | None = None, what: str = "features") -> None:
    """Refuse NaN and infinity.

    Args:
        x: N,... one row per sample.
        ids: N sample ids for the message; the row number is named where they are absent.
        what: what the rows are, for the message.

    Raises:
        NumericalError: names the first bad sample and how many there are.
    """
    bad_N = ~torch.isfinite(x).reshape(x.shape[0], -1).all(dim=1) if x.numel() else torch.zeros(0, dtype=torch.bool)
    n_bad = int(bad_N.sum())
    if n_bad:
        row = int(bad_N.nonzero()[0])
        name = f"sample {ids[row]!r}" if ids is not None else f"row {row}"
        raise NumericalError(
            f"{what} of {name} are not finite ({n_bad} of {x.shape[0]} rows hold NaN or infinity)",
            "Check this input and the tower's dtype; fp16 overflows above 65504, bf16 and fp32 do not.",
        )


def l2_normalize(x: Tensor, *, ids: Sequence[str] | None = None, what: str = "features", eps: float = _EPS) -> Tensor:
    """Rows of unit length: cast to float32 first, then divide by max(norm, eps). A zero row stays zero.

    Args:
        x: ..., D of any floating dtype; the first axis counts samples.
        ids: sample ids along the first axis, for the message.
        what: what the rows are, for the message.
        eps: the smallest norm divided by.

    Returns:
        Float32, the shape of `x`, on its device.

    Raises:
        NumericalError: NaN or infinity, in `x` or in the norm of a row.
    """
    x = x.to(torch.float32)
    check_finite(x, ids, what)
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    check_finite(norm, ids, f"norms of {what}")
    return x / norm.clamp_min(eps)
