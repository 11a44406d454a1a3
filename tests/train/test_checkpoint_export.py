"""A checkpoint in transformers and in mtv-eval, exports (E1), and what `inspect` says of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_world import save, tree
from synthetic import build, synthetic_batch, tiny_recipe
from torch.nn import functional as F

from mtv.encoders import load
from mtv.errors import CacheError, CheckpointError, UsageError
from mtv.train.export import export_run, inspect_run
from mtv.train.parallel import Parallel
from mtv.train.run_folder import read_state, write_recipe

EXPORTED = {
    "config.json",
    "model.safetensors",
    "mtv_heads.safetensors",
    "mtv_training.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.mark.parametrize("whole_run", [True, False])
def test_export_loads_in_transformers(whole_run: bool, saved: Path, trained: Parallel, tmp_path: Path) -> None:
    from transformers import SiglipModel, SiglipProcessor

    out = tmp_path / "deep" / "out"
    export_run(saved.parent if whole_run else saved, out, "hf")
    assert {p.name for p in out.iterdir()} == EXPORTED
    assert {p.name for p in out.parent.iterdir()} == {"out"}
    model = SiglipModel.from_pretrained(out).eval()
    SiglipProcessor.from_pretrained(out)
    batch = synthetic_batch(trained.learner.recipe, 8, 5)
    ours = trained.learner.model
    assert ours.text is not None
    assert ours.log_scale is not None
    assert ours.bias is not None
    with torch.no_grad():
        theirs_BB = model(input_ids=batch.text_BT, pixel_values=batch.global_BCHW).logits_per_image
        image_BD = F.normalize(ours.vision(batch.global_BCHW).pooled_BD, dim=-1)
        text_BD = F.normalize(ours.text(batch.text_BT), dim=-1)
        ours_BB = image_BD @ text_BD.T * ours.log_scale.exp() + ours.bias
    assert float((ours_BB - theirs_BB).abs().max()) < 1e-5
    assert float(ours_BB.std()) > 1e-2


def test_half_towers_are_the_same_model(saved: Path, trained: Parallel, tmp_path: Path) -> None:
    export_run(saved, tmp_path / "whole", "hf")
    export_run(saved, tmp_path / "half", "hf", towers_only=True, half=True)
    assert {p.name for p in (tmp_path / "half").iterdir()} == EXPORTED - {"mtv_heads.safetensors"}
    assert (tmp_path / "half" / "model.safetensors").stat().st_mode & 0o044 == 0o044, "others cannot read it"
    sizes = [(tmp_path / n / "model.safetensors").stat().st_size for n in ("half", "whole")]
    assert sizes[0] < 0.55 * sizes[1]
    images_BCHW = synthetic_batch(trained.learner.recipe, 4, 5).global_BCHW
    pooled = [
        load(f"hf:{tmp_path / n}").features(images_BCHW, layers=[], pooled=True).pooled for n in ("half", "whole")
    ]
    assert float(F.cosine_similarity(pooled[0], pooled[1]).min()) > 0.9999
    for refused in ({"half": True}, {"towers_only": True, "to": "open_clip"}):
        with pytest.raises(UsageError, match="towers_only"):
            export_run(saved, tmp_path / "no", **{"to": "hf", **refused})  # type: ignore[arg-type]


def test_a_run_is_an_encoder(saved: Path, trained: Parallel) -> None:
    encoder: Any = load(f"mtv:{saved.parent}")
    images_BCHW = synthetic_batch(trained.learner.recipe, 4, 5).global_BCHW
    model = trained.learner.model
    with torch.no_grad():
        ours_BHW = model.predict_disparity(model.vision(images_BCHW, taps=model.size.dpt.taps), (32, 32))
        torch.testing.assert_close(encoder.forward_depth(images_BCHW), ours_BHW, rtol=1e-4, atol=1e-5)


def test_encoders_say_what_they_were_trained_on(saved: Path, trained: Parallel, tmp_path: Path) -> None:
    recipe = trained.learner.recipe
    export_run(saved, tmp_path / "out", "hf")
    for spec in (f"mtv:{saved.parent}", f"hf:{tmp_path / 'out'}"):
        record = load(spec).info.training
        assert record is not None
        assert (record.objectives, record.seed, record.size) == (recipe.tasks, recipe.seed, recipe.model.name)
        assert (record.recipe_hash, record.samples_total) == (recipe.hash, recipe.steps * recipe.batch)
        assert record.samples == read_state(saved)["samples_seen"]
    assert load(f"hf:{tmp_path / 'out'}@random").info.training is None
    other = recipe.set(["seed=7", "tasks=vl"])
    assert other.hash != recipe.hash
    assert other.study_hash == recipe.study_hash != recipe.set(["optim.lr=1"]).study_hash


def test_export_without_text_tower(tmp_path: Path) -> None:
    from transformers import SiglipVisionModel

    folder = save(tmp_path / "run", build(tiny_recipe(tasks=("depth",))), 0)
    export_run(folder, tmp_path / "out", "hf")
    SiglipVisionModel.from_pretrained(tmp_path / "out")
    with pytest.raises(UsageError, match="text tower"):
        export_run(folder, tmp_path / "clip", "open_clip")
    assert {p.name for p in tmp_path.iterdir()} == {"run", "out"}


def test_open_clip_refuses_towers_that_timm_lacks(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no timm tower has width 64"):
        export_run(saved, tmp_path / "out", "open_clip")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export_run(saved, tmp_path / "out", "hf")
    before = tree(tmp_path)
    with pytest.raises(UsageError, match="exists already"):
        export_run(saved, tmp_path / "out", "hf")
    assert tree(tmp_path) == before
    (tmp_path / "file").touch()
    with pytest.raises(CacheError):
        export_run(saved, tmp_path / "file" / "out", "hf")


def test_damage_is_not_exported(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
        export_run(folder, tmp_path / "out", "hf")
    assert not (tmp_path / "out").exists()
    with pytest.raises(CheckpointError, match="no finished checkpoint"):
        export_run(tmp_path / "nowhere", tmp_path / "out", "hf")


def test_inspect(folder: Path, trained: Parallel) -> None:
    run, recipe = folder.parent, trained.learner.recipe
    with pytest.raises(UsageError, match="no run"):
        inspect_run(run)
    write_recipe(run, recipe)
    line = {"step": 3, "loss": 1.5, "loss/vl": 0.25}
    (run / "log.jsonl").write_text('{"step": 2}\n' + json.dumps(line) + '\n{"step": 4, "lo')
    found = inspect_run(run)
    assert json.loads(json.dumps(found)) == found
    assert (found["step"], found["steps"], found["samples"], found["samples_total"]) == (3, 6, 48, 96)
    assert (found["name"], found["latest"], found["log"]) == ("tiny-test", "step_0000003", line)
    assert found["recipe"] == recipe.to_dict()
    assert found["parameters"]["total"] == sum(p.numel() for p in trained.parameters)
    size = sum(p.stat().st_size for p in folder.iterdir())
    expected: dict[str, Any] = {"name": folder.name, "step": 3, "samples": 48, "bytes": size}
    assert found["checkpoints"] == [{**expected, "sound": True, "problem": None}]


def test_inspect_names_what_is_damaged(folder: Path, trained: Parallel) -> None:
    run = folder.parent
    save(run, trained, 6)
    (folder / "optimizer.safetensors").unlink()
    (run / "latest").unlink()
    (run / "step_0000009").mkdir()
    found = inspect_run(run)
    assert [c["sound"] for c in found["checkpoints"]] == [False, True, False]
    assert "optimizer.safetensors is missing" in found["checkpoints"][0]["problem"]
    assert "no state.json" in found["checkpoints"][2]["problem"]
    assert found["step"] == 6
    assert found["log"] is None


def test_inspect_before_the_first_checkpoint(tmp_path: Path) -> None:
    write_recipe(tmp_path, tiny_recipe())
    found = inspect_run(tmp_path)
    assert (found["step"], found["latest"], found["parameters"], found["checkpoints"]) == (0, None, None, [])
