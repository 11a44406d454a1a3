"""`python:MODULE:FACTORY` and `python:FILE.py:FACTORY`: a model of the user's own, without a fork of this project.

The factory takes no arguments and returns

* an `mtv.encoders.Encoder`, used as it is; where its weights were changed after loading, under its own fingerprint; or
* an `nn.Module` that maps normalised images B,3,H,W to a dense map B,C,h,w with h = H / patch_size, to a tuple
  (map, pooled B,D), or to a dict with the keys `map` and optionally `pooled`. Its attributes:

  - `patch_size` (int): required;
  - `size` (int): native input side, required here or as `?size=`;
  - `mean`, `std` (three numbers), `resize`, `crop_pct`, `filter`: where absent, the neutral rule applies, that is mean
    and std 0.5, shorter side to `size` and centre crop, bicubic;
  - `pooling` (`mean` or `max`): how the map is pooled when no pooled vector is returned; `mean` where absent;
  - `encode_text(list of str) -> N,D` (a method): used for zero-shot tasks if present. Strings arrive with whitespace
    collapsed (or cleaned by `?cleaning=`); tokenisation is the module's own;
  - `predict_depth(normalised images B,3,H,W) -> B,h,w` (a method): used for relative depth if present. `depth_kind`
    is then required: `disparity` (larger is nearer) or `depth`; `depth_floored` is True for heads that end in a ReLU.

The map is one layer: what the module returns is read under `norm='none'` and `norm='final'` alike. The code runs in
this process, so it may register architectures. The source file enters the fingerprint; files that it imports do not.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from mtv.encoders.base import Encoder, Features, Tap, TextKind
from mtv.encoders.build import activation_of, freeze, identified, make_info
from mtv.encoders.options import IMAGE_KEYS, LOADING_KEYS, MODEL_KEYS, TEXT_KEYS, reject_options
from mtv.encoders.policy import IMAGE_FIELDS, resolve_image
from mtv.encoders.python_import import import_factory
from mtv.encoders.records import DepthHeadRecord, DepthKind, EncoderInfo, ImageRecord, KeyReport, TextRecord
from mtv.encoders.spec import ModelSpec
from mtv.errors import UsageError
from mtv.hashing import sha256_file

_POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda map_BCHW: map_BCHW.mean(dim=(2, 3)),
    "max": lambda map_BCHW: map_BCHW.amax(dim=(2, 3)),
}


def load_python(spec: ModelSpec, *, options: Mapping[str, Any], download: bool) -> Encoder:
    """Import the factory, call it, and check what came back on a grey picture.

    Raises:
        UsageError: file, module or factory missing, the factory failed, or its result breaks the contract above.
    """
    factory, source = import_factory(spec)
    try:
        built = factory()
    except Exception as e:
        raise UsageError(f"{spec.text}: the factory raised {type(e).__name__}: {e}") from e
    if isinstance(built, Encoder):
        every = (*IMAGE_KEYS, *TEXT_KEYS, *MODEL_KEYS, *LOADING_KEYS)
        reject_options(options, every, "the factory returned a finished Encoder")
        freeze(built.module)
        built.info = identified(built.info, built.module, spec)
        return built
    if not isinstance(built, nn.Module):
        raise UsageError(
            f"{spec.text}: the factory returned {type(built).__name__}, not an Encoder or nn.Module",
            "See the contract in mtv/encoders/python_backend.py.",
        )
    return _wrap(spec, freeze(built), options, source)


def wrap_module(module: nn.Module) -> Encoder:
    """A module that the caller holds already, for instance one in training, behind the interface.

    The contract is the one above. Weights, device, dtype and `requires_grad` stay the module's own; while it is probed
    on a grey picture it is in evaluation mode, afterwards every part has its training flag back. The record describes
    the weights as they are now: wrap again after they changed. Put the module into evaluation mode before use.

    Raises:
        UsageError: the module has no parameters or breaks the contract.
    """
    if next(module.parameters(), None) is None:
        raise UsageError(f"{type(module).__name__} has no parameters, so its device and dtype are unknown")
    kind = type(module)
    spec = ModelSpec(
        scheme="python", name=kind.__name__, tag=kind.__module__, text=f"python:{kind.__module__}:{kind.__name__}"
    )
    modes = {name: part.training for name, part in module.named_modules()}
    try:
        return _wrap(spec, module.eval(), {}, _source_of(kind))
    finally:
        for name, part in module.named_modules():
            part.training = modes[name]


def _source_of(kind: type[nn.Module]) -> Path | None:
    """The file that defines a class; None where there is none, as in a notebook."""
    try:
        return Path(inspect.getfile(kind))
    except (TypeError, OSError):
        return None


def _wrap(spec: ModelSpec, module: nn.Module, options: Mapping[str, Any], source: Path | None) -> Encoder:
    has_text = callable(getattr(module, "encode_text", None))
    unused = [*MODEL_KEYS, *LOADING_KEYS, *(k for k in TEXT_KEYS if k not in ("cleaning", "caption_cleaning"))]
    reject_options(options, unused, "the module decides it")
    if not has_text:
        reject_options(options, TEXT_KEYS, "the module has no encode_text")
    image, sources = resolve_image(
        option=options,
        config=_attributes(module, spec),
        config_name="module attributes",
        tag=None,
        tag_name="",
        family="custom",
        native_size=None,
    )
    wrapper = _DenseModule(module, spec, image)
    depth_head = _depth_record(wrapper, spec)
    text = _text_record(module, options) if has_text else None
    info = make_info(
        spec=spec,
        adapter="python",
        architecture=type(module).__name__,
        family="custom",
        config={"source_sha256": sha256_file(source) if source else "", "structure": repr(module)},
        module=module,
        vision=module,
        text_module=None,
        activation=activation_of(module),
        pos_interp="inside the module",
        pooling=wrapper.pooling,
        image=image,
        text=text,
        sources=sources,
        keys=KeyReport(),
        depth_head=depth_head,
    )
    return PythonEncoder(wrapper, info)


class PythonEncoder(Encoder):
    """A user's dense module behind the interface: one layer, the map."""

    depth = 1

    def __init__(self, dense: _DenseModule, info: EncoderInfo) -> None:
        self._dense = dense
        self.info = info
        self.patch_size, self.width, self.embed_dim = dense.patch_size, dense.width, dense.embed_dim

    @property
    def module(self) -> nn.Module:
        """The user's module."""
        return self._dense.module

    def forward_features(self, images_B3HW: Tensor, *, layers: Sequence[int], norm: Tap, pooled: bool) -> Features:
        """One call of the module; see `Encoder.features`."""
        map_BCHW, vector_BD = self._dense(images_B3HW)
        tokens = {i: map_BCHW.permute(0, 2, 3, 1).contiguous() for i in layers}
        if not pooled:
            return Features(tokens=tokens, pooled=None, global_token=None)
        # The pooled vector may live in another width than the map; the global token must not.
        token_BC = vector_BD if vector_BD.shape[1] == self.width else map_BCHW.mean(dim=(2, 3))
        return Features(tokens=tokens, pooled=vector_BD, global_token=token_BC)

    def forward_depth(self, images_B3HW: Tensor) -> Tensor:
        """The module's own `predict_depth`, or the head of a file."""
        if self.fitted_depth is not None:
            return super().forward_depth(images_B3HW)
        return self._dense.predict_depth(images_B3HW)

    def encode_text(self, strings: Sequence[str], *, kind: TextKind = "prompt", batch_size: int = 256) -> Tensor:
        """Text embeddings of the module's own `encode_text`; see `Encoder.encode_text`."""
        if self.info.text is None:
            return super().encode_text(strings, kind=kind, batch_size=batch_size)
        from mtv.encoders.cleaning import clean

        how = self.info.text.cleaning if kind == "prompt" else self.info.text.caption_cleaning
        cleaned = [clean(s, how) for s in strings]
        unique = list(dict.fromkeys(cleaned))
        row = {s: i for i, s in enumerate(unique)}
        with torch.no_grad():
            parts = [self._embed(unique[i : i + batch_size]) for i in range(0, len(unique), batch_size)]
        if not parts:
            return torch.empty(0, self.embed_dim, device=self.device)
        return torch.cat(parts)[[row[s] for s in cleaned]]

    def _embed(self, batch: list[str]) -> Tensor:
        out: Tensor = self._dense.module.encode_text(batch)  # type: ignore[operator]
        if not isinstance(out, Tensor) or tuple(out.shape) != (len(batch), self.embed_dim):
            got = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise UsageError(
                f"{self.info.spec}: encode_text returned {got} for {len(batch)} strings, expected "
                f"[{len(batch)}, {self.embed_dim}] (the width of the pooled image vector)"
            )
        return out.float()


class _DenseModule:
    """Calls the module and holds its output to the contract."""

    def __init__(self, module: nn.Module, spec: ModelSpec, image: ImageRecord) -> None:
        self.module, self._name = module, spec.text
        patch: Any = getattr(module, "patch_size", None)
        if isinstance(patch, bool) or not isinstance(patch, int) or patch < 1:
            raise UsageError(f"{spec.text}: the module needs an integer attribute patch_size, got {patch!r}")
        self.patch_size = patch
        if image.size % patch:
            raise UsageError(f"{spec.text}: image.size {image.size} is no multiple of patch_size {patch}")
        rule = getattr(module, "pooling", "mean")
        if rule not in _POOLS:
            raise UsageError(f"{spec.text}: attribute pooling must be one of {', '.join(_POOLS)}, got {rule!r}")
        self._pool = _POOLS[rule]
        self._side = image.size
        with torch.no_grad():
            own = self._call(self.grey())[1] is not None
            map_BCHW, vector_BD = self(self.grey())
        self.pooling = "pooled vector of the module" if own else f"{rule} of the dense map"
        self.width, self.embed_dim = int(map_BCHW.shape[1]), int(vector_BD.shape[1])

    def __call__(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        map_BCHW, vector_BD = self._call(images_B3HW)
        return map_BCHW, self._pool(map_BCHW) if vector_BD is None else vector_BD

    def grey(self) -> Tensor:
        """Two grey pictures of the native size, to try the module on."""
        weight = next(self.module.parameters(), torch.empty(0))
        return torch.zeros(2, 3, self._side, self._side, device=weight.device, dtype=weight.dtype)

    def predict_depth(self, images_B3HW: Tensor) -> Tensor:
        """The module's depth map, held to the contract."""
        out: Any = self.module.predict_depth(images_B3HW)  # type: ignore[operator]
        if not isinstance(out, Tensor) or out.ndim != 3 or len(out) != len(images_B3HW) or not out.numel():
            raise self._wrong("predict_depth", out, f"[{len(images_B3HW)}, h, w]")
        return out

    def _call(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor | None]:
        out = self.module(images_B3HW)
        dense: Any
        vector: Any
        if isinstance(out, Mapping):
            if "map" not in out:
                raise UsageError(f"{self._name}: the module returned a dict without key 'map': {sorted(out)}")
            dense, vector = out["map"], out.get("pooled")
        elif isinstance(out, (tuple, list)):
            if len(out) != 2:
                raise UsageError(f"{self._name}: the module returned {len(out)} values, expected (map, pooled)")
            dense, vector = out
        else:
            dense, vector = out, None
        batch, _, height, width = images_B3HW.shape
        grid = (height // self.patch_size, width // self.patch_size)
        if not isinstance(dense, Tensor) or dense.ndim != 4 or (dense.shape[0], *dense.shape[2:]) != (batch, *grid):
            raise self._wrong("map", dense, f"[{batch}, C, {grid[0]}, {grid[1]}] (patch_size {self.patch_size})")
        if vector is not None and (not isinstance(vector, Tensor) or vector.ndim != 2 or len(vector) != batch):
            raise self._wrong("pooled vector", vector, f"[{batch}, D]")
        return dense, vector

    def _wrong(self, what: str, value: Any, expected: str) -> UsageError:
        got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        return UsageError(f"{self._name}: the module's {what} is {got}, expected {expected}")


def _attributes(module: nn.Module, spec: ModelSpec) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in IMAGE_FIELDS:
        value: Any = getattr(module, name, None)
        # torch modules carry `size`-like methods; only data counts.
        if value is None or inspect.ismethod(value) or inspect.isfunction(value):
            continue
        if name in ("mean", "std"):
            try:
                flat = value.flatten().tolist() if isinstance(value, Tensor) else list(value)
                value = tuple(float(v) for v in flat)
            except (TypeError, ValueError) as e:
                raise UsageError(f"{spec.text}: attribute {name} must be three numbers, got {value!r}") from e
        found[name] = value
    return found


def _depth_record(dense: _DenseModule, spec: ModelSpec) -> DepthHeadRecord | None:
    """What the module's depth head gives, after one try on grey pictures; None where it has none."""
    module: Any = dense.module
    if not callable(getattr(module, "predict_depth", None)):
        return None
    kind: Any = getattr(module, "depth_kind", None)
    if kind not in get_args(DepthKind):
        raise UsageError(
            f"{spec.text}: a module with predict_depth needs the attribute depth_kind, got {kind!r}",
            "disparity (larger is nearer) or depth (larger is farther).",
        )
    with torch.no_grad():
        dense.predict_depth(dense.grey())
    return DepthHeadRecord(kind=kind, floored=bool(getattr(module, "depth_floored", False)))


def _text_record(module: nn.Module, options: Mapping[str, Any]) -> TextRecord:
    """Cleaning is ours; ids and length belong to the module and are recorded as unknown (-1, 0)."""
    return TextRecord(
        cleaning=options.get("cleaning", "none"),
        caption_cleaning=options.get("caption_cleaning", options.get("cleaning", "none")),
        tokenizer=f"inside {type(module).__name__}",
        length=0,
        bos=None,
        eos=-1,
        pad=-1,
        causal=False,
        trim=False,
    )
