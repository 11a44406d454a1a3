"""E1 and section 13: export, reload in transformers, import with its checks, and the heads beside it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from model_world import FULL, NANO, SMALL_SSL, TEXTS, images, lively, mini, small
from PIL import Image
from safetensors.torch import load_file, save_file

from mtv.errors import CheckpointError, UsageError
from mtv.model.config import SIZES
from mtv.model.heads_file import load_heads, read_heads
from mtv.model.hf_export import export_hf, tower_state
from mtv.model.hf_import import expected_shapes, load_export, load_towers, read_siglip
from mtv.model.hf_keys import from_hf
from mtv.model.model import MtvModel, teacher

WEIGHTS, HEADS = "model.safetensors", "mtv_heads.safetensors"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[MtvModel, Path]:
    model = lively(small())
    follower = teacher(model)
    with torch.no_grad():
        for parameter in follower.parameters():
            parameter.mul_(0.9)
    folder = tmp_path_factory.mktemp("run") / "export"
    centres = {"dino": torch.full((1, 48), 0.25), "ibot": torch.full((1, 48), -0.5)}
    export_hf(model, folder, tokenizer=mini(), teacher=follower, centres=centres, training={"optim": {"lr": 5e-4}})
    return model, folder


def copy_of(folder: Path, target: Path) -> Path:
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_e1_the_library_gives_equal_logits(exported: tuple[MtvModel, Path]) -> None:
    model, folder = exported
    library, report = transformers.SiglipModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())
    processor = transformers.AutoProcessor.from_pretrained(folder)
    pictures = [Image.effect_noise((50, 40), 80).convert("RGB"), Image.new("RGB", (32, 60), (255, 0, 128))]
    texts = [t.replace("&", "and") for t in TEXTS]
    inputs = processor(text=texts, images=pictures, padding="max_length", truncation=True, return_tensors="pt")
    assert set(inputs) == {"input_ids", "pixel_values"}, "a mask would hide the padding"
    assert inputs["input_ids"].shape == (5, 16)
    assert (inputs["input_ids"].numpy() == mini().encode(texts)).all()
    assert inputs["pixel_values"].shape == (2, 3, 32, 32)
    assert inputs["pixel_values"][1, 0].unique().tolist() == [1.0]
    with torch.no_grad():
        logits = library.eval()(**inputs).logits_per_image
        v = torch.nn.functional.normalize(model.vision(inputs["pixel_values"]).pooled_BD, dim=-1)
        t = torch.nn.functional.normalize(model.text(inputs["input_ids"]), dim=-1)  # type: ignore[misc]
        log_scale, bias = model.region_scale
        ours = log_scale.exp() * v @ t.T + bias
    torch.testing.assert_close(ours, logits, rtol=0, atol=1e-5)
    assert logits.std() > 1e-3


def test_configuration_states_what_the_class_defaults_get_wrong(exported: tuple[MtvModel, Path]) -> None:
    config = json.loads((exported[1] / "config.json").read_text())
    text = config["text_config"]
    assert (text["vocab_size"], text["max_position_embeddings"], text["projection_size"]) == (4610, 16, 64)
    assert (text["pad_token_id"], text["eos_token_id"], text["bos_token_id"]) == (1, 1, None)
    for part in (text, config["vision_config"]):
        assert (part["hidden_act"], part["layer_norm_eps"]) == ("gelu_pytorch_tanh", 1e-6)
    loaded = transformers.AutoConfig.from_pretrained(exported[1])
    assert loaded.text_config.eos_token_id == 1
    assert json.loads((exported[1] / "mtv_training.json").read_text()) == {"optim": {"lr": 5e-4}}


def test_names_round_trip_and_shapes() -> None:
    model = lively(small(frozenset({"vl"})))
    state = tower_state(model)
    back = from_hf(state, vision_layers=4, text_layers=2)
    own = model.state_dict()
    assert set(back) == set(own)
    assert all(torch.equal(back[name], value) for name, value in own.items())
    assert {k: tuple(v.shape) for k, v in state.items()} == expected_shapes(NANO.vision, NANO.text)
    assert state["logit_scale"].shape == state["logit_bias"].shape == (1,)
    for size, count in (("b16", 203_155_970), ("l16", 652_150_786)):
        shapes = expected_shapes(SIZES[size].vision, SIZES[size].text)
        assert sum(torch.Size(s).numel() for s in shapes.values()) == count


def test_import_starts_from_the_towers_and_says_what_is_fresh(
    exported: tuple[MtvModel, Path], caplog: pytest.LogCaptureFixture
) -> None:
    source, folder = exported
    model = small(frozenset({"vl", "ssl"}), seed=5)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        load_towers(model, folder)
    assert "towers start from export; dino_head, ibot_head start fresh, and the teacher as a copy" in caplog.text
    after, wanted = model.state_dict(), source.state_dict()
    for name, value in after.items():
        kept = name.startswith(("dino_head", "ibot_head")) or name == "vision.mask_token"
        assert torch.equal(value, before[name] if kept else wanted[name]), name
    assert torch.equal(teacher(model).vision.pool.probe, source.vision.pool.probe)


def test_import_of_a_model_saved_by_the_library(tmp_path: Path) -> None:
    """The official form: sparse configuration, keys as transformers writes them."""
    text = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = {**text, "num_hidden_layers": 4, "image_size": 32, "patch_size": 8}
    config = transformers.SiglipConfig(
        text_config={**text, "vocab_size": 4610, "max_position_embeddings": 16}, vision_config=vision
    )
    torch.manual_seed(0)
    library = transformers.SiglipModel(config).eval()
    library.save_pretrained(tmp_path)
    model = small(frozenset({"vl"})).eval()
    load_towers(model, tmp_path)
    ids = torch.randint(0, 4610, (2, 16))
    with torch.no_grad():
        theirs = library(input_ids=ids, pixel_values=images(2, 32))
        torch.testing.assert_close(
            model.vision(images(2, 32)).pooled_BD, theirs.vision_model_output.pooler_output, rtol=0, atol=1e-5
        )
        ours = model.text(ids)  # type: ignore[misc]
        torch.testing.assert_close(ours, theirs.text_model_output.pooler_output, rtol=0, atol=1e-5)
    assert torch.equal(model.log_scale, library.logit_scale)  # type: ignore[arg-type]


def damage(change: Any) -> Any:
    def apply(folder: Path) -> None:
        state = load_file(folder / WEIGHTS)
        change(state)
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})

    return apply


def configure(part: str, **fields: Any) -> Any:
    def apply(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (config[part] if part else config).update(fields)
        (folder / "config.json").write_text(json.dumps(config))

    return apply


POSITIONS = "vision_model.embeddings.position_embedding.weight"
BROKEN = {
    "missing key": (damage(lambda s: s.pop(POSITIONS)), rf"1 missing: {POSITIONS}"),
    "unexpected key": (damage(lambda s: s.update(extra=torch.zeros(1))), "1 unexpected: extra"),
    "shape": (damage(lambda s: s.update(logit_bias=torch.zeros(()))), r"logit_bias: file \[\], config.json \[1\]"),
    "nan": (damage(lambda s: s[POSITIONS][3, 5].fill_(torch.nan)), rf"tensor '{POSITIONS}' holds 1 values"),
    "config contradicts": (configure("vision_config", image_size=48), r"file \[16, 64\], config.json \[36, 64\]"),
    "architecture": (configure("", model_type="clip"), "model_type is 'clip', expected 'siglip'"),
    "activation": (configure("text_config", hidden_act="gelu"), r"text_config\.hidden_act is 'gelu'"),
    "no head": (configure("vision_config", vision_use_head=False), r"vision_config\.vision_use_head is False"),
    "projection": (configure("text_config", projection_size=32), r"projection_size is 32, the width 64"),
    "bad size": (configure("vision_config", patch_size=7), r"vision\.image_size=32 must be a multiple"),
    "pickle only": (lambda f: (f / WEIGHTS).rename(f / "pytorch_model.bin"), "holds no model.safetensors"),
    "cut": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:5000]), "no complete safetensors"),
}


@pytest.mark.parametrize("kind", sorted(BROKEN))
def test_broken_imports_name_file_and_key(exported: tuple[MtvModel, Path], tmp_path: Path, kind: str) -> None:
    apply, message = BROKEN[kind]
    folder = copy_of(exported[1], tmp_path / "broken")
    apply(folder)
    model = small(frozenset({"vl"}), seed=2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message) as caught:
        load_towers(model, folder)
    assert "broken" in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()), "a refused import changes nothing"


def test_another_size_is_named_field_by_field(exported: tuple[MtvModel, Path]) -> None:
    other = NANO.with_(name="other", vision={"image_size": 64}, text={"positions": 32})
    with pytest.raises(CheckpointError, match=r"vision\.image_size: file 32, model 64; text\.positions: file 16, mod"):
        load_towers(small(frozenset({"vl"}), size=other), exported[1])


def test_heads_travel_beside_the_towers(exported: tuple[MtvModel, Path]) -> None:
    model, folder = exported
    heads = read_heads(folder / HEADS)
    assert (heads.size, heads.objectives, heads.ssl) == (NANO, FULL, SMALL_SSL)
    assert float(heads.part("centres")["dino"][0, 0]) == 0.25
    assert float(heads.part("centres")["ibot"][0, 0]) == -0.5
    teachers = heads.part("teacher")
    torch.testing.assert_close(teachers["vision.pool.probe"], 0.9 * model.vision.pool.probe)
    assert sum(v.numel() for v in teachers.values()) == sum(p.numel() for p in teacher(model).parameters())
    again = load_export(folder)
    assert set(again.state_dict()) == set(model.state_dict())
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


def test_an_own_scale_never_replaces_the_pair_of_the_texts(tmp_path: Path) -> None:
    model = small(own_scale=True)
    with torch.no_grad():
        model.ground_log_scale.fill_(7.0)  # type: ignore[union-attr]
    export_hf(model, tmp_path, tokenizer=mini())
    assert float(load_file(tmp_path / WEIGHTS)["logit_scale"]) == pytest.approx(2.302585)
    assert float(read_heads(tmp_path / HEADS).tensors["ground_log_scale"]) == 7.0
    assert float(load_export(tmp_path).region_scale[0].detach()) == 7.0


def test_towers_alone_have_an_empty_heads_file(tmp_path: Path) -> None:
    export_hf(small(frozenset({"vl"})), tmp_path, tokenizer=mini())
    assert read_heads(tmp_path / HEADS).tensors == {}
    assert load_export(tmp_path).objectives == {"vl"}


def test_heads_of_another_model_are_refused(exported: tuple[MtvModel, Path], tmp_path: Path) -> None:
    heads = read_heads(exported[1] / HEADS)
    with pytest.raises(CheckpointError, match=rf"{HEADS} does not fit the architecture.*unexpected"):
        load_heads(small(frozenset({"vl", "ssl"})), heads)
    foreign = tmp_path / HEADS
    save_file({"a": torch.zeros(1)}, foreign)
    with pytest.raises(CheckpointError, match="was not written by this trainer"):
        read_heads(foreign)
    with pytest.raises(CheckpointError, match=r"missing\.safetensors"):
        read_heads(tmp_path / "missing.safetensors")
    save_file({"a": torch.zeros(1)}, foreign, metadata={"mtv_heads": '{"format": 9}'})
    with pytest.raises(CheckpointError, match="heads of format 9"):
        read_heads(foreign)


def test_a_model_without_text_becomes_a_vision_model(tmp_path: Path) -> None:
    model = lively(small(frozenset({"ssl", "depth"})))
    export_hf(model, tmp_path, tokenizer=None, teacher=teacher(model))
    library, report = transformers.SiglipVisionModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    with torch.no_grad():
        theirs = library.eval()(images(2, 32)).pooler_output
        torch.testing.assert_close(model.vision(images(2, 32)).pooled_BD, theirs, rtol=0, atol=1e-5)
    assert not (tmp_path / "tokenizer.json").exists()


def test_exports_that_cannot_be_right_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a tokenizer belongs to a model with a text tower"):
        export_hf(small(frozenset({"vl"})), tmp_path / "a", tokenizer=None)
    with pytest.raises(UsageError, match="a tokenizer belongs to a model with a text tower"):
        export_hf(small(frozenset({"ssl"})), tmp_path / "a", tokenizer=mini())
    with pytest.raises(UsageError, match="4610 ids and 32 positions, the text tower 4610 and 16"):
        export_hf(small(frozenset({"vl"})), tmp_path / "a", tokenizer=mini(32))
    model = small(frozenset({"vl"}))
    with torch.no_grad():
        model.vision.positions[0, 0] = torch.inf
    with pytest.raises(CheckpointError, match=r"position_embedding\.weight' holds 1 values that are NaN or infinite"):
        export_hf(model, tmp_path / "a", tokenizer=mini())
    assert not (tmp_path / "a").exists()


def test_a_half_precision_file_imports_as_float32(exported: tuple[MtvModel, Path], tmp_path: Path) -> None:
    folder = copy_of(exported[1], tmp_path / "half")
    damage(lambda s: s.update({k: v.half() for k, v in s.items()}))(folder)
    _, _, state = read_siglip(folder)
    assert {v.dtype for v in state.values()} == {torch.float32}
