"""A1 and the model's part of A2: exact parameter counts, and a gradient for every trainable parameter."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations

import pytest
import torch
import transformers
from model_world import FULL, NANO, boxes, images, small

from mtv.errors import UsageError
from mtv.model.config import OBJECTIVES, SIZES, DptConfig, ModelSize, PrompterConfig, SslConfig, VisionConfig
from mtv.model.hf_config import config_json
from mtv.model.model import MtvModel, parameter_counts, teacher

TOTALS = {
    "b16": (203_155_970, 232_591_106, 239_679_746, 250_274_883),
    "l16": (652_150_786, 682_634_754, 695_232_002, 724_998_851),
}
PARTS = {
    "b16": {"text": 110_271_744, "vision_trunk": 85_797_120, "vision_pool": 7_087_104, "scale_bias": 2},
    "l16": {"text": 336_194_560, "vision_trunk": 303_361_024, "vision_pool": 12_595_200, "scale_bias": 2},
}
TEACHERS = {"b16": 122_318_592, "l16": 346_439_168}
SUBSETS = [frozenset(s) for n in range(1, 5) for s in combinations(OBJECTIVES, n)]


def on_meta(size: str, objectives: frozenset[str], **prompter: bool) -> MtvModel:
    with torch.device("meta"):
        return MtvModel(SIZES[size], objectives, SslConfig(), PrompterConfig(**prompter))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", ["b16", "l16"])
def test_a1_totals_of_the_four_rows(size: str) -> None:
    for count, expected in enumerate(TOTALS[size], start=1):
        model = on_meta(size, frozenset(OBJECTIVES[:count]))
        assert parameter_counts(model)["total"] == expected
        assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize("size", ["b16", "l16"])
def test_a1_parts(size: str) -> None:
    model = on_meta(size, FULL)
    counts = parameter_counts(model)
    assert {name: counts[name] for name in PARTS[size]} == PARTS[size]
    assert sum(v for k, v in counts.items() if k != "total") == counts["total"]
    assert sum(p.numel() for p in teacher(model).parameters()) == TEACHERS[size]
    assert parameter_counts(on_meta(size, FULL, own_scale=True))["total"] == TOTALS[size][3] + 2


@pytest.mark.parametrize("size", ["b16", "l16"])
def test_a1_vision_language_row_equals_the_library(size: str) -> None:
    config = config_json(SIZES[size], text=True)
    with torch.device("meta"):
        library = transformers.SiglipModel(
            transformers.SiglipConfig(text_config=config["text_config"], vision_config=config["vision_config"])
        )
    assert sum(p.numel() for p in library.parameters()) == TOTALS[size][0]


@pytest.mark.parametrize("objectives", SUBSETS, ids=lambda s: "+".join(sorted(s)))
@pytest.mark.parametrize("own_scale", [False, True])
def test_a2_every_trainable_parameter_gets_a_gradient(objectives: frozenset[str], own_scale: bool) -> None:
    model = small(objectives, own_scale=own_scale)
    use_everything(model).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    frozen = {n.split(".")[1] for n, p in model.named_parameters() if not p.requires_grad and "." in n}
    assert frozen <= {"pool", "norm"}
    assert frozen == set() or not objectives & {"vl", "ssl"}


def use_everything(model: MtvModel) -> torch.Tensor:
    """The reads of the active objectives, without their formulas."""
    loss = torch.zeros(())
    pixels, texts = images(2, 32), torch.randint(0, 100, (2, 16))
    active = model.objectives
    out = model.vision(pixels, taps=NANO.dpt.taps, pool=bool(active & {"vl", "ssl"}))
    if "vl" in active:
        assert model.text is not None
        assert model.log_scale is not None
        assert model.bias is not None
        assert out.pooled_BD is not None
        loss = loss + (model.log_scale.exp() * (out.pooled_BD @ model.text(texts).T) + model.bias).sum()
    if "ssl" in active:
        assert model.dino_head is not None
        assert model.ibot_head is not None
        mask = torch.zeros(2, 16, dtype=torch.bool)
        mask[:, :8] = True
        masked = model.vision(pixels, mask_BN=mask, pool=False)
        local = model.vision(images(2, 16))
        loss = loss + model.ibot_head(model.vision.norm(masked.tokens_BND)[mask]).logsumexp(-1).sum()
        loss = loss + model.dino_head(local.pooled_BD).logsumexp(-1).sum()
    if "ground" in active:
        assert model.prompter is not None
        assert model.text is not None
        log_scale, bias = model.region_scale
        regions = model.prompter(out.tokens_BND, boxes(2, 3)).flatten(0, 1)
        loss = loss + (log_scale.exp() * regions @ model.text(texts).T + bias).square().sum()
    if "depth" in active:
        loss = loss + model.predict_disparity(out, (32, 32)).square().sum()
    return loss


def test_an_inactive_objective_builds_no_module() -> None:
    model = small(frozenset({"vl"}))
    assert {n for n, _ in model.named_children()} == {"vision", "text"}
    assert model.vision.mask_token is None
    model = small(frozenset({"depth"}))
    assert {n for n, _ in model.named_children()} == {"vision", "dpt"}
    assert model.log_scale is None


@pytest.mark.parametrize("wrong", [frozenset(), frozenset({"vl", "deepth"})])
def test_unknown_objectives_are_named(wrong: frozenset[str]) -> None:
    with pytest.raises(UsageError, match="deepth" if wrong else "none given"):
        small(wrong)


def test_recipes_read_sizes_and_texts_without_torch() -> None:
    code = (
        "import sys, mtv.model.config, mtv.model.mini_bpe, mtv.model.tokenizer, mtv.model.hf_config;"
        "mtv.model.mini_bpe.tokenizer_json();"
        "sys.exit(any(m in sys.modules for m in ('torch', 'open_clip', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_sizes_are_checked_and_survive_json() -> None:
    for size in SIZES.values():
        assert ModelSize.from_dict(size.to_dict()) == size
    wider = NANO.with_(name="x", vision={"image_size": 48}, text={"positions": 20})
    assert (wider.vision.patches, wider.text.positions, wider.name) == (36, 20, "x")
    with pytest.raises(UsageError, match=r"vision\.image_size=30 must be a multiple"):
        NANO.with_(vision={"image_size": 30})
    with pytest.raises(UsageError, match=r"vision\.width=128 and text\.width=64"):
        NANO.with_(vision={"width": 128})
    with pytest.raises(UsageError, match=r"depth\.taps=\(1, 2, 3, 4\) must end at the last block, 5"):
        NANO.with_(vision={"layers": 5})
    with pytest.raises(UsageError, match=r"depth\.taps must not fall"):
        DptConfig(taps=(2, 1, 3, 4), tap_widths=(1, 1, 1, 1), features=2)
    with pytest.raises(UsageError, match=r"vision\.heads must be a positive integer"):
        VisionConfig(image_size=32, width=64, layers=1, heads=0, mlp_width=4)
    with pytest.raises(UsageError, match=r"ground\.conditioning must be query or token, got 'box'"):
        PrompterConfig(conditioning="box")  # type: ignore[arg-type]
