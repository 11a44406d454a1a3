"""A3 to A6, V2, V6: the towers against transformers' `SiglipModel`, and how they start."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import transformers
from model_world import FULL, NANO, images, lively, small

from mtv.errors import UsageError
from mtv.model.config import SIZES, ModelSize, VisionConfig
from mtv.model.hf_config import config_json
from mtv.model.hf_export import tower_state
from mtv.model.init import initialise
from mtv.model.model import MtvModel
from mtv.model.vision import VisionTower

# The paper's widths, heads and patches, with fewer blocks and words.
REALISTIC = SIZES["b16"].with_(
    name="realistic", vision={"layers": 4}, text={"layers": 1, "vocab_size": 2000}, dpt={"taps": (1, 2, 3, 4)}
)


def library(model: MtvModel) -> Any:
    config = config_json(model.size, text=True)
    parts = {k: config[k] for k in ("text_config", "vision_config")}
    reference = transformers.SiglipModel(transformers.SiglipConfig(**parts)).eval()
    reference.load_state_dict(tower_state(model))
    return reference


@pytest.mark.parametrize("size", [NANO, REALISTIC], ids=lambda s: s.name)
def test_a3_towers_equal_the_library(size: ModelSize) -> None:
    pixels = images(1 if size is REALISTIC else 3, size.vision.image_size)
    ids = torch.randint(0, size.text.vocab_size, (3, size.text.positions))
    model = lively(MtvModel(size, frozenset({"vl"})), sharpen=1.0)
    compare(model, library(model), pixels, ids, 1e-5)
    if size is not NANO:
        return
    # with sharp attention, rounding alone exceeds that in float32; in double precision nothing is left
    model = lively(model)
    compare(model.double(), library(model).double(), pixels.double(), ids, 1e-11)


def compare(model: MtvModel, reference: Any, pixels: torch.Tensor, ids: torch.Tensor, limit: float) -> None:
    layers = model.size.vision.layers

    def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
        torch.testing.assert_close(ours, theirs, rtol=0, atol=limit)

    with torch.no_grad():
        theirs = reference.vision_model(pixels, output_hidden_states=True)
        out = model.vision(pixels, taps=range(1, layers + 1))
        text_BD = model.text(ids)  # type: ignore[misc]
        assert out.pooled_BD is not None
        close(out.pooled_BD, theirs.pooler_output)
        close(model.vision.norm(out.tokens_BND), theirs.last_hidden_state)
        close(text_BD, reference.text_model(ids).pooler_output)
        # A6: tap t is hidden_states[t], the output of the t-th block
        for tap, tokens_BND in out.taps.items():
            close(tokens_BND, theirs.hidden_states[tap])
        assert torch.equal(out.taps[layers], out.tokens_BND)
    assert out.pooled_BD.std() > 0.05, "a constant output would agree with anything"


@pytest.mark.parametrize("side", [16, 48])
def test_other_sizes_equal_the_library(side: int) -> None:
    model = lively(small(frozenset({"vl"})))
    pixels = images(2, side)
    with torch.no_grad():
        theirs = library(model).vision_model(pixels, interpolate_pos_encoding=True).pooler_output
        torch.testing.assert_close(model.vision(pixels).pooled_BD, theirs, rtol=0, atol=1e-5)


def test_a4_position_table() -> None:
    tower = VisionTower(VisionConfig(image_size=224, width=768, layers=1, heads=12, mlp_width=3072))
    torch.nn.init.normal_(tower.positions)
    assert torch.equal(tower.position_table((14, 14)), tower.positions)
    local = tower.position_table((6, 6))
    assert local.shape == (36, 768)
    assert local.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert tower.position_table((6, 6)).dtype == torch.float32
    # a linear ramp stays one away from the border, where bicubic weights sum to 1
    with torch.no_grad():
        tower.positions.copy_(torch.arange(14.0).repeat(14)[:, None].expand(-1, 768))
    row = tower.position_table((7, 7)).view(7, 7, 768)[3, :, 0]
    torch.testing.assert_close(row[2:5], 2 * torch.arange(2.0, 5) + 0.5, rtol=0, atol=0.05)


def test_a5_the_mask_token_comes_before_positions() -> None:
    model = small()
    tower = model.vision
    token = tower.mask_token
    assert token is not None
    x_BND, grid = tower.embed(images(2, 32), torch.ones(2, 16, dtype=torch.bool))
    assert grid == (4, 4)
    torch.testing.assert_close(x_BND, (token + tower.positions).expand(2, -1, -1))
    assert float((x_BND[0, 0] - x_BND[0, 1]).detach().abs().max()) > 0.01
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[0, 3] = mask[1, 5] = True
    part_BND, _ = tower.embed(images(2, 32), mask)
    plain_BND, _ = tower.embed(images(2, 32))
    torch.testing.assert_close(part_BND[mask], token + tower.positions[[3, 5]])
    assert torch.equal(part_BND[~mask], plain_BND[~mask])


def test_a6_depth_has_the_size_of_the_image() -> None:
    assert SIZES["b16"].dpt.taps == (3, 6, 9, 12)
    assert SIZES["l16"].dpt.taps == (6, 12, 18, 24)
    for size in (SIZES["b16"], SIZES["l16"], NANO):
        side = size.vision.image_size
        with torch.device("meta"):
            model = MtvModel(size, frozenset({"depth"}))
            out = model.vision(torch.empty(2, 3, side, side), taps=size.dpt.taps, pool=False)
            taps = [out.taps[t] for t in size.dpt.taps]
            assert model.dpt is not None
            assert model.dpt(taps, out.grid_hw, (side, side)).shape == (2, side, side)


def test_v2_scale_and_bias_at_start() -> None:
    model = small()
    assert model.log_scale is not None
    assert model.bias is not None
    assert model.log_scale.shape == model.bias.shape == (1,)
    assert float(model.log_scale) == pytest.approx(2.302585, abs=1e-6)
    assert float(model.log_scale.exp()) == pytest.approx(10.0, abs=1e-5)
    assert float(model.bias) == -10.0
    own = small(own_scale=True)
    assert [float(v) for v in own.region_scale] == pytest.approx([math.log(10), -10.0])
    assert own.region_scale[0] is own.ground_log_scale
    assert model.region_scale[0] is model.log_scale


def test_v6_the_length_of_texts_is_enforced() -> None:
    size = NANO.with_(text={"positions": 64})
    model = small(frozenset({"vl"}), size=size)
    assert model.text is not None
    ids = torch.ones(1, 64, dtype=torch.int64)
    ids[0, :5] = torch.arange(10, 15)
    with pytest.raises(UsageError, match="texts have 16 tokens, the tower takes 64"):
        model.text(ids[:, :16])
    # what the check prevents: the library accepts the shorter text, and gives another embedding
    reference = library(model)
    with torch.no_grad():
        long, short = (reference.text_model(part).pooler_output for part in (ids, ids[:, :16]))
    assert float((long - short).abs().max()) > 1e-3


def test_refusals_name_the_problem() -> None:
    tower = small(frozenset({"vl"})).vision
    with pytest.raises(UsageError, match="image size 30x32 is no multiple of patch size 8"):
        tower(torch.zeros(1, 3, 30, 32))
    with pytest.raises(UsageError, match=r"taps \[0, 5\] do not exist: blocks are 1 to 4"):
        tower(images(1, 32), taps=(0, 1, 5))
    with pytest.raises(UsageError, match="has no mask token"):
        tower(images(1, 32), mask_BN=torch.ones(1, 16, dtype=torch.bool))


def test_initial_weights_are_distributed_as_in_the_library() -> None:
    size = SIZES["tiny"]
    ours = tower_state(MtvModel(size, frozenset({"vl"})))
    config = config_json(size, text=True)
    torch.manual_seed(0)
    parts = {k: config[k] for k in ("text_config", "vision_config")}
    theirs = transformers.SiglipModel(transformers.SiglipConfig(**parts)).state_dict()
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        if name.startswith("logit_"):
            continue
        tolerance = 6 / math.sqrt(2 * value.numel()) + 1e-12
        assert float(ours[name].mean()) == pytest.approx(
            float(value.mean()), abs=tolerance * (float(value.std()) + 1e-9)
        )
        assert float(ours[name].std()) == pytest.approx(float(value.std()), rel=tolerance)
        # kurtosis tells uniform, normal and truncated draws apart
        if value.numel() > 10_000:
            assert float(kurtosis(ours[name])) == pytest.approx(float(kurtosis(value)), abs=0.2)


def kurtosis(x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean()).pow(4).mean() / x.var().square()


def test_a_missed_parameter_is_loud() -> None:
    model = small()
    model.vision.register_parameter("forgotten", torch.nn.Parameter(torch.zeros(3)))
    with pytest.raises(RuntimeError, match=r"vision\.forgotten"):
        initialise(model, 0)


def test_parts_start_the_same_whatever_else_is_built() -> None:
    full, baseline = small(FULL).state_dict(), small(frozenset({"vl"})).state_dict()
    assert set(baseline) < set(full)
    assert all(torch.equal(value, full[name]) for name, value in baseline.items())
    other = small(FULL, seed=1).state_dict()
    assert not torch.equal(other["vision.patch_weight"], full["vision.patch_weight"])
    before = torch.random.get_rng_state()
    small()
    assert torch.equal(before, torch.random.get_rng_state())
    assert not torch.equal(full["dino_head.fc1.weight"], full["ibot_head.fc1.weight"])


def test_bf16_autocast_stays_close_and_finite() -> None:
    model = lively(small(frozenset({"vl"})))
    pixels = images(2, 32)
    with torch.no_grad():
        exact = model.vision(pixels).pooled_BD
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = model.vision(pixels).pooled_BD
    assert rough is not None
    assert exact is not None
    assert float(torch.nn.functional.cosine_similarity(rough.float(), exact).min()) > 0.999
