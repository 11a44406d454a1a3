"""`mtv:RUN_DIR[/step_N]`: a checkpoint of the trainer as an encoder.

A step folder holds the run's export in `SiglipModel` form (what `hf:` reads) and `mtv_heads.safetensors`; `latest` in
the run names the newest one. The encoder is the student with its depth head, where it was trained; `?vision=teacher`
takes the image tower of the EMA teacher instead. The teacher has no depth head: the head was trained on the student.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtv.encoders.base import Encoder, Tap
from mtv.encoders.build import millions
from mtv.encoders.checkpoint import load_strict
from mtv.encoders.fingerprint import weights_sha256
from mtv.encoders.hf_backend import load_hf
from mtv.encoders.hf_encoder import HfEncoder, attribute
from mtv.encoders.options import reject_options
from mtv.encoders.records import DepthHeadRecord, EncoderInfo
from mtv.encoders.spec import ModelSpec
from mtv.errors import CheckpointError, UsageError
from mtv.hashing import sha256_json
from mtv.model.dpt import DptHead
from mtv.model.heads_file import FILE as HEADS_FILE
from mtv.model.heads_file import HeadsFile, read_heads
from mtv.model.hf_keys import to_hf

LATEST = "latest"
TOWERS = ("student", "teacher")


class RunEncoder(HfEncoder):
    """A run's towers in `SiglipModel` form, with its depth head; the head computes in float32.

    Args:
        base: the loaded towers.
        info: their record, with the run's spec and the head.
        dpt: the depth head, none where depth was not trained.
    """

    def __init__(self, base: HfEncoder, info: EncoderInfo, dpt: DptHead | None) -> None:
        super().__init__(base._model, base._layout, base.text, info)
        self._dpt = dpt

    def forward_depth(self, images_B3HW: Tensor) -> Tensor:
        """Disparity B,H,W at the size of the images, up to a positive scale and a shift; negative values are normal."""
        if self._dpt is None:
            return super().forward_depth(images_B3HW)
        config = self._dpt.config
        layers = [tap - 1 for tap in config.taps]
        norm: Tap = "final" if config.tap_norm == "final" else "none"
        tokens = self.features(images_B3HW, layers=layers, norm=norm).tokens
        height, width = images_B3HW.shape[-2:]
        taps = [tokens[i].flatten(1, 2).float() for i in layers]
        return self._dpt(taps, (height // self.patch_size, width // self.patch_size), (height, width))

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Encoder:
        """Move the model; the depth head keeps its dtype."""
        super().to(device, dtype)
        if self._dpt is not None:
            self._dpt.to(device)
        return self


def load_run(spec: ModelSpec, *, options: Mapping[str, Any], download: bool) -> RunEncoder:
    """Load an `mtv:` spec on the CPU in fp32.

    Args:
        spec: the parsed spec.
        options: typed overrides under plain keys; `vision` is `student` or `teacher`.
        download: allow fetching a tokenizer that `?tokenizer=` names.

    Raises:
        UsageError: a value of `vision` that does not exist, options that cannot be followed.
        CheckpointError: no such run or step, missing or damaged files, no teacher in them.
    """
    reject_options(options, ("subfolder",), "name the step instead: mtv:RUN/step_N")
    tower = options.get("vision", "student")
    if tower not in TOWERS:
        raise UsageError(f"vision must be student or teacher, got {tower!r}")
    folder, why = step_folder(spec)
    heads = read_heads(folder / HEADS_FILE)
    # The hf backend sees a directory; "mtv-" in front of the name is what makes its family MTV's.
    inner = replace(spec, scheme="hf", name=f"mtv-{spec.name}", file=str(folder), tag=None)
    base = load_hf(inner, options={k: v for k, v in options.items() if k != "vision"}, download=download)
    if tower == "teacher":
        _take_teacher(base, heads)
    dpt = _depth_head(heads) if tower == "student" else None
    sources = {"weights": why} | ({"vision": f"option: vision={tower}"} if "vision" in options else {})
    return RunEncoder(base, _info(spec, base, dpt, sources), dpt)


def step_folder(spec: ModelSpec) -> tuple[Path, str]:
    """The folder of the step that a spec names, or of the run's newest, and which rule chose it.

    Raises:
        CheckpointError: no such run, no finished checkpoint in it, or no such step; lists the steps.
    """
    assert spec.file is not None
    run = Path(spec.file)
    if not run.is_dir():
        raise CheckpointError(f"{spec.text}: {run} is no directory", "Give the --out directory of an mtv-train run.")
    steps = {int(p.name.removeprefix("step_")): p for p in run.iterdir() if re.fullmatch(r"step_\d+", p.name)}
    listing = ", ".join(steps[n].name for n in sorted(steps)[-8:]) or "none"
    if spec.tag is not None:
        folder = steps.get(int(spec.tag.removeprefix("step_")))
        if folder is None:
            raise CheckpointError(f"{spec.text}: the run has no {spec.tag}; it has {listing}")
        return folder, f"step: {folder.name}"
    try:
        name = (run / LATEST).read_text(encoding="utf-8").strip()
    except OSError as e:
        raise CheckpointError(
            f"{spec.text}: {run.name} has no file {LATEST!r}, so no finished checkpoint; its steps: {listing}",
            "Wait for the first checkpoint, or name a step: mtv:RUN/step_N.",
        ) from e
    folder = run / name
    if folder not in steps.values():
        raise CheckpointError(f"{spec.text}: {LATEST} names {name!r}, which is not there; its steps: {listing}")
    return folder, f"{LATEST}: {name}"


def _take_teacher(base: HfEncoder, heads: HeadsFile) -> None:
    tensors = {f"vision.{k}": v for k, v in heads.part("teacher.vision").items()}
    if not tensors:
        raise CheckpointError(f"{heads.file} holds no teacher: ssl was not trained", "Leave out vision=teacher.")
    state = to_hf(tensors, vision_layers=heads.size.vision.layers, text_layers=0)
    state = {k.removeprefix("vision_model."): v for k, v in state.items()}
    load_strict(attribute(base._model, base._layout.vision), state, file=heads.file)


def _depth_head(heads: HeadsFile) -> DptHead | None:
    if "depth" not in heads.objectives:
        return None
    dpt = DptHead(heads.size.vision.width, heads.size.dpt)
    load_strict(dpt, heads.part("dpt"), file=heads.file)
    return dpt.eval().requires_grad_(False)


def _info(spec: ModelSpec, base: HfEncoder, dpt: DptHead | None, sources: dict[str, str]) -> EncoderInfo:
    """The towers' record under the run's spec. Other weights or a head make another fingerprint."""
    info = base.info
    sha = weights_sha256(base.module)
    changed: dict[str, Any] = {}
    record = None
    if sha != info.weights_sha256:
        changed["weights"] = sha
    if dpt is not None:
        record = DepthHeadRecord(kind="disparity", floored=dpt.config.final_act)
        changed["depth_head"] = weights_sha256(dpt)
        sources["depth_head"] = f"config: {HEADS_FILE}"
    return replace(
        info,
        spec=spec.public,
        adapter="mtv",
        weights_sha256=sha,
        fingerprint=sha256_json({"encoder": info.fingerprint, **changed}) if changed else info.fingerprint,
        params_m=info.params_m + millions(dpt),
        sources={**info.sources, **sources},
        depth_head=record,
    )
