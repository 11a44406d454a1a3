"""`mtv:RUN`: a run's checkpoint as an encoder, end to end, with depth head and teacher."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from model_world import FULL, NANO, TEXTS, images, lively, mini, small
from safetensors.torch import load_file, save_file

from mtv.encoders import load
from mtv.errors import CheckpointError, UsageError
from mtv.model.hf_export import export_hf
from mtv.model.model import MtvModel, Teacher, teacher


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[MtvModel, Teacher, Path]:
    folder = tmp_path_factory.mktemp("runs") / "b16"
    export_hf(lively(small(seed=9)), folder / "step_0000050", tokenizer=mini())
    model = lively(small())
    follower = teacher(model)
    with torch.no_grad():
        for parameter in follower.parameters():
            parameter.mul_(0.95)
    export_hf(model, folder / "step_0000123", tokenizer=mini(), teacher=follower)
    (folder / "latest").write_text("step_0000123\n")
    (folder / "recipe.json").write_text("{}")
    return model, follower, folder


def equal(a: torch.Tensor | None, b: torch.Tensor | None) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_features_text_and_depth_are_the_models_own(run: tuple[MtvModel, Teacher, Path]) -> None:
    model, _, folder = run
    encoder: Any = load(f"mtv:{folder}")
    assert (encoder.depth, encoder.width, encoder.patch_size, encoder.embed_dim) == (4, 64, 8, 64)
    for side in (32, 48):
        pixels = images(2, side)
        with torch.no_grad():
            out = model.vision(pixels, taps=NANO.dpt.taps)
            found = encoder.features(pixels, layers=[0, -1], norm="none", pooled=True)
            normed = encoder.features(pixels, layers=[-1], norm="final").tokens[3]
            equal(found.pooled, out.pooled_BD)
            equal(found.tokens[0].flatten(1, 2), out.taps[1])
            equal(found.tokens[3].flatten(1, 2), out.tokens_BND)
            equal(normed.flatten(1, 2), model.vision.norm(out.tokens_BND))
            equal(encoder.predict_depth(pixels), model.predict_disparity(out, (side, side)))
    with torch.no_grad():
        ids = torch.from_numpy(mini().encode(TEXTS))
        for kind in ("prompt", "caption"):
            assert torch.equal(encoder.text.tokenize(TEXTS, kind), ids)
            equal(encoder.encode_text(TEXTS, kind=kind), model.text(ids))  # type: ignore[misc]


def test_loading_says_nothing(run: tuple[MtvModel, Teacher, Path]) -> None:
    """transformers warns about its own default ids, which no file of the run holds."""
    said: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")
    logger.addHandler(listener)
    try:
        load(f"mtv:{run[2]}")
        logger.warning("heard")
    finally:
        logger.removeHandler(listener)
    assert said == ["heard"]


def test_the_record(run: tuple[MtvModel, Teacher, Path]) -> None:
    _, _, folder = run
    info = load(f"mtv:{folder}").info
    assert (info.spec, info.adapter, info.family) == ("mtv:./b16", "mtv", "mtv")
    assert info.depth_head is not None
    assert (info.depth_head.kind, info.depth_head.floored) == ("disparity", False)
    assert info.sources["weights"] == "latest: step_0000123"
    assert info.image.resize == "squash"
    assert info.image.mean == (0.5, 0.5, 0.5)
    assert info.activation == "gelu_tanh"
    older, same = load(f"mtv:{folder}/step_0000050").info, load(f"mtv:{folder}/step_123").info
    assert older.sources["weights"] == "step: step_0000050"
    assert older.fingerprint != info.fingerprint == same.fingerprint
    assert load(f"hf:{folder}/step_0000123").info.fingerprint != info.fingerprint, "a depth head is another model"


def test_the_teachers_tower(run: tuple[MtvModel, Teacher, Path]) -> None:
    model, follower, folder = run
    student, encoder = load(f"mtv:{folder}"), load(f"mtv:{folder}?vision=teacher")
    pixels = images(2, 32)
    with torch.no_grad():
        out = follower.vision(pixels)
        found = encoder.features(pixels, layers=[-1], norm="none", pooled=True)
        equal(found.pooled, out.pooled_BD)
        equal(found.tokens[3].flatten(1, 2), out.tokens_BND)
        assert float((out.pooled_BD - model.vision(pixels).pooled_BD).abs().max()) > 1e-3
    assert not encoder.has_depth
    assert encoder.has_text
    assert encoder.info.fingerprint != student.info.fingerprint
    assert encoder.info.weights_sha256 != student.info.weights_sha256
    assert encoder.info.sources["vision"] == "option: vision=teacher"


def test_the_depth_head_stays_in_float32(run: tuple[MtvModel, Teacher, Path]) -> None:
    model, _, folder = run
    encoder: Any = load(f"mtv:{folder}", dtype="bf16")
    assert encoder.dtype == torch.bfloat16
    assert {p.dtype for p in encoder._dpt.parameters()} == {torch.float32}
    with torch.no_grad():
        out = model.vision(images(1, 32), taps=NANO.dpt.taps)
        exact = model.predict_disparity(out, (32, 32))
    rough = encoder.predict_depth(images(1, 32).bfloat16())
    assert rough.dtype == torch.float32
    assert float((rough - exact).abs().mean()) < 0.1 * float(exact.std()) + 0.02


def test_a_run_without_text_or_depth(tmp_path: Path) -> None:
    model = lively(small(frozenset({"ssl"})))
    follower = teacher(model)
    follower.update_(small(frozenset({"ssl"}), seed=3), 0.5)
    export_hf(model, tmp_path / "step_1", tokenizer=None, teacher=follower)
    (tmp_path / "latest").write_text("step_1")
    encoder = load(f"mtv:{tmp_path}")
    assert not encoder.has_text
    assert not encoder.has_depth
    with torch.no_grad():
        equal(encoder.features(images(2, 32), pooled=True).pooled, model.vision(images(2, 32)).pooled_BD)
        other = load(f"mtv:{tmp_path}?vision=teacher")
        equal(other.features(images(2, 32), pooled=True).pooled, follower.vision(images(2, 32)).pooled_BD)


@pytest.mark.parametrize("tap_norm", ["raw", "own"])
def test_other_tap_norms_and_a_final_activation(tmp_path: Path, tap_norm: str) -> None:
    model = lively(small(FULL, size=NANO.with_(dpt={"tap_norm": tap_norm, "final_act": True})))
    export_hf(model, tmp_path / "step_7", tokenizer=mini())
    encoder = load(f"mtv:{tmp_path}/step_7")
    assert encoder.info.depth_head is not None
    assert encoder.info.depth_head.floored
    with torch.no_grad():
        out = model.vision(images(2, 32), taps=NANO.dpt.taps)
        equal(encoder.predict_depth(images(2, 32)), model.predict_disparity(out, (32, 32)))


def test_what_is_not_there_is_said(run: tuple[MtvModel, Teacher, Path], tmp_path: Path) -> None:
    _, _, folder = run
    with pytest.raises(CheckpointError, match="is no directory"):
        load(f"mtv:{tmp_path}/nothing")
    with pytest.raises(CheckpointError, match="has no file 'latest', so no finished checkpoint; its steps: none"):
        load(f"mtv:{tmp_path}")
    with pytest.raises(CheckpointError, match="the run has no step_7; it has step_0000050, step_0000123"):
        load(f"mtv:{folder}/step_7")
    with pytest.raises(UsageError, match="vision must be student or teacher, got 'ema'"):
        load(f"mtv:{folder}?vision=ema")
    with pytest.raises(CheckpointError, match="holds no teacher"):
        load(f"mtv:{folder}/step_50?vision=teacher")
    with pytest.raises(UsageError, match="only checkpoints of a run"):
        load(f"hf:{folder}/step_0000123?vision=teacher")
    with pytest.raises(UsageError, match="subfolder"):
        load(f"mtv:{folder}?subfolder=x")
    (tmp_path / "latest").write_text("step_9")
    with pytest.raises(CheckpointError, match="latest names 'step_9', which is not there"):
        load(f"mtv:{tmp_path}")
    (tmp_path / "latest").write_text("../elsewhere")
    with pytest.raises(CheckpointError, match="which is not there"):
        load(f"mtv:{tmp_path}")


def test_a_damaged_head_is_named(tmp_path: Path) -> None:
    export_hf(small(), tmp_path / "step_1", tokenizer=mini())
    file = tmp_path / "step_1" / "mtv_heads.safetensors"
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    state = load_file(file)
    state["dpt.out1.bias"][0] = torch.nan
    save_file(state, file, metadata=metadata)
    with pytest.raises(CheckpointError, match=r"mtv_heads.safetensors: tensor 'dpt.out1.bias' holds 1 values"):
        load(f"mtv:{tmp_path}/step_1")
    del state["dpt.out1.bias"]
    save_file(state, file, metadata=metadata)
    with pytest.raises(CheckpointError, match=r"1 missing: out1.bias"):
        load(f"mtv:{tmp_path}/step_1")
