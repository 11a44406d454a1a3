"""`timm:NAME`, `timm:NAME@FILE`, `timm:NAME@random?seed=0`: image encoders of timm, never their classification heads.

Plain ViTs (also DINOv2 with registers, SigLIP image towers, EVA-02 and DINOv3 with rotary positions) give every block
in one pass and take any input size; hierarchical and convolutional models give their last stage.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtv.encoders.base import Encoder, Features, Tap
from mtv.encoders.build import activation_of, freeze, make_info
from mtv.encoders.options import MODEL_KEYS, TEXT_KEYS, reject_options
from mtv.encoders.policy import family_of, image_from_timm, resolve_image
from mtv.encoders.records import EncoderInfo, ImageRecord, KeyReport
from mtv.encoders.spec import ModelSpec
from mtv.encoders.timm_shapes import Shape, shape_of
from mtv.encoders.timm_weights import TimmEntry, config_beside, find_weights, load_weights, timm_entry
from mtv.errors import UsageError

logger = logging.getLogger(__name__)


def load_timm(spec: ModelSpec, *, options: Mapping[str, Any], download: bool) -> Encoder:
    """Build a timm model, load its weights strictly, and resolve its preprocessing.

    Raises:
        UsageError: unknown name, unresolved preprocessing, an option without effect.
        CheckpointError: weights that are not here or do not fit.
    """
    reject_options(options, TEXT_KEYS, "timm models have no text tower")
    reject_options(options, set(MODEL_KEYS) - {"quick_gelu"}, "the timm backend does not know it")
    entry = timm_entry(spec)
    # Before the model is built: a missing file should not cost the construction.
    weights = None if spec.random else find_weights(spec, entry, download=download)
    act, act_source = _activation(entry, options, spec)
    model = _create(entry, act, seed=options.get("seed", 0))
    keys = KeyReport()
    config = None
    if weights is not None:
        allowed = {k: options.get(k, ()) for k in ("allow_missing", "allow_unexpected")}
        keys = load_weights(model, weights, entry, **allowed)
        config = config_beside(weights, entry)
    image, sources = _image(spec, entry, model, options, config)
    freeze(model)
    shape = shape_of(model, image, family_of(spec.name))
    if image.size % shape.patch_size:
        raise UsageError(
            f"{spec.text}: image.size {image.size} is no multiple of patch size {shape.patch_size}",
            f"Use for example ?size={image.size // shape.patch_size * shape.patch_size}.",
        )
    info = make_info(
        spec=spec,
        adapter="timm",
        architecture=entry.architecture,
        family=family_of(spec.name) or "custom",
        config={"architecture": entry.architecture, "act_layer": act, "num_classes": 0},
        module=model,
        vision=model,
        text_module=None,
        activation=act or activation_of(getattr(model, "blocks", model)),
        pos_interp=shape.pos_interp,
        pooling=shape.pooling,
        image=image,
        text=None,
        sources={**sources, "activation": act_source},
        keys=keys,
    )
    return TimmEncoder(model, info, shape)


class TimmEncoder(Encoder):
    """A timm model behind the interface; `pooled` and `global_token` are both timm's vector before the head."""

    def __init__(self, model: nn.Module, info: EncoderInfo, shape: Shape) -> None:
        self._model: Any = model
        self._shape = shape
        self.info = info
        self.patch_size, self.depth, self.width = shape.patch_size, shape.depth, shape.width
        self.embed_dim = shape.embed_dim
        self.has_class_token = shape.has_class_token

    @property
    def module(self) -> nn.Module:
        """The timm model."""
        model: nn.Module = self._model
        return model

    def forward_features(self, images_B3HW: Tensor, *, layers: Sequence[int], norm: Tap, pooled: bool) -> Features:
        """One pass; see `Encoder.features`.

        Raises:
            UsageError: `norm='final'` on a model without a final norm, or a size that a fixed-size model cannot take.
        """
        self._shape.check(images_B3HW, norm if layers else "none", self.info.architecture)
        try:
            return self._forward(images_B3HW, layers, norm, pooled)
        except (AssertionError, RuntimeError) as e:
            # timm asserts, or torch stumbles over a shape, where an architecture cannot take a size (windows, fixed
            # grids). Everything else, memory and dtypes above all, is no matter of size and passes through.
            size = list(images_B3HW.shape[-2:])
            about_size = isinstance(e, AssertionError) or any(
                w in str(e) for w in ("size of tensor", "shape '", "shapes")
            )
            if size == [self.info.image.size] * 2 or not about_size:
                raise
            raise UsageError(f"{self.info.architecture} does not take {size} pixels: {e}") from e

    def _forward(self, images_B3HW: Tensor, layers: Sequence[int], norm: Tap, pooled: bool) -> Features:
        shape, model = self._shape, self._model
        tokens: dict[int, Tensor] = {}
        class_token: dict[int, Tensor] = {}
        final = None
        if layers:
            taps = sorted({shape.index(i) for i in layers})
            out = model.forward_intermediates(
                images_B3HW,
                indices=taps,
                norm=False,
                stop_early=not pooled,
                output_fmt=shape.output_fmt,
                intermediates_only=not pooled,
                **({"return_prefix_tokens": True} if shape.has_class_token else {}),
            )
            final, read = out if pooled else (None, out)
            by_tap = dict(zip(taps, read, strict=True))
            grid = (images_B3HW.shape[-2] // self.patch_size, images_B3HW.shape[-1] // self.patch_size)
            for i in layers:
                tokens[i], cls_BD = shape.read(by_tap[shape.index(i)], norm, grid)
                class_token.update({} if cls_BD is None else {i: cls_BD})
        if not pooled:
            return Features(tokens=tokens, pooled=None, global_token=None, class_token=class_token)
        vector_BD = shape.pool(model.forward_features(images_B3HW) if final is None else final)
        return Features(tokens=tokens, pooled=vector_BD, global_token=vector_BD, class_token=class_token)


def _activation(entry: TimmEntry, options: Mapping[str, Any], spec: ModelSpec) -> tuple[str | None, str]:
    """Value for timm's `act_layer` (None keeps the architecture's) and the rule that decided it."""
    if "quick_gelu" in options:
        return ("quick_gelu" if options["quick_gelu"] else "gelu"), f"option: quick_gelu={options['quick_gelu']}"
    notes = " ".join(entry.cfg.get("notes") or ())
    if "QuickGELU" in notes and not spec.random and (entry.named or spec.file is None):
        # timm only remarks that these weights were trained with QuickGELU; plain GELU would cost accuracy silently.
        return "quick_gelu", f"tag: {entry.tag}"
    return None, f"family: architecture {entry.architecture}"


def _create(entry: TimmEntry, act: str | None, *, seed: int) -> nn.Module:
    """The architecture without classifier, initialised from `seed` whatever the caller's generator holds."""
    import timm

    kwargs: dict[str, Any] = {"pretrained": False, "num_classes": 0}
    if act is not None:
        kwargs["act_layer"] = act
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return timm.create_model(entry.architecture, dynamic_img_size=True, **kwargs)
        except TypeError as e:
            if "dynamic_img_size" not in str(e):
                raise UsageError(f"timm cannot build {entry.architecture} with {kwargs}: {e}") from e
        torch.manual_seed(seed)
        try:
            return timm.create_model(entry.architecture, **kwargs)
        except TypeError as e:
            raise UsageError(f"timm cannot build {entry.architecture} with {kwargs}: {e}") from e


def _image(
    spec: ModelSpec, entry: TimmEntry, model: Any, options: Mapping[str, Any], config: Mapping[str, Any] | None
) -> tuple[ImageRecord, dict[str, str]]:
    # A local file says nothing about its tag; only a named one counts. Random weights have no right statistics, so the
    # library's entry is as good as any and keeps them comparable.
    use_tag = bool(entry.cfg) and (entry.named or spec.file is None)
    native = getattr(getattr(model, "patch_embed", None), "img_size", None) or (entry.cfg.get("input_size") or ())[1:]
    return resolve_image(
        option=options,
        config=image_from_timm(config) if config else None,
        config_name="config.json",
        tag=image_from_timm(entry.cfg) if use_tag else None,
        tag_name=entry.tag or f"timm default of {entry.architecture}",
        family=family_of(spec.name),
        native_size=int(native[0]) if native else None,
    )
