"""Strictness of the hf backend: keys, shapes, file formats, code in repositories, missing pieces."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers
from hf_world import TOWER, save, seeded
from safetensors.torch import load_file, save_file

from mtv.encoders import load
from mtv.errors import CheckpointError, UsageError


@pytest.fixture
def dinov2(tmp_path: Path) -> Path:
    return save(seeded(lambda: transformers.Dinov2Model(transformers.Dinov2Config(**TOWER))), tmp_path / "dinov2")


def test_strict_keys(dinov2: Path) -> None:
    file = dinov2 / "model.safetensors"
    state = load_file(file)
    state.pop("layernorm.weight")
    save_file(state | {"extra.w": torch.zeros(1)}, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 missing: layernorm\.weight; 1 unexpected: extra\.w"):
        load(f"hf:{dinov2}")
    keys = load(f"hf:{dinov2}?allow_missing=layernorm.*&allow_unexpected=extra.*").info.keys
    assert (keys.missing, keys.unexpected) == (("layernorm.weight",), ("extra.w",))


def test_shapes_that_differ_are_listed(dinov2: Path) -> None:
    config = json.loads((dinov2 / "config.json").read_text())
    (dinov2 / "config.json").write_text(json.dumps(config | {"image_size": 64}))
    with pytest.raises(CheckpointError, match=r"of another shape: embeddings.position_embeddings: file \[1, 17, 32\]"):
        load(f"hf:{dinov2}")


def test_classification_checkpoint_loads_without_its_head(tmp_path: Path) -> None:
    config = transformers.Dinov2Config(**TOWER, num_labels=3)
    encoder = load(f"hf:{save(seeded(lambda: transformers.Dinov2ForImageClassification(config)), tmp_path)}")
    assert set(encoder.info.keys.unexpected) == {"classifier.weight", "classifier.bias"}
    assert encoder.info.keys.missing == ()


def test_safetensors_and_bin_agree_and_pickles_are_refused(dinov2: Path) -> None:
    safe = load(f"hf:{dinov2}").info
    state = load_file(dinov2 / "model.safetensors")
    (dinov2 / "model.safetensors").unlink()
    torch.save(state, dinov2 / "pytorch_model.bin")
    assert load(f"hf:{dinov2}").info.weights_sha256 == safe.weights_sha256
    marker = dinov2 / "executed"
    torch.save({"w": Bomb(str(marker))}, dinov2 / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"dinov2/pytorch_model\.bin"):
        load(f"hf:{dinov2}")
    assert not marker.exists()


class Bomb:
    """Creates a file when unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(self.path),))


def test_half_precision_files_become_fp32(dinov2: Path) -> None:
    file = dinov2 / "model.safetensors"
    save_file({k: v.half() for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
    config = json.loads((dinov2 / "config.json").read_text())
    (dinov2 / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))
    assert {p.dtype for p in load(f"hf:{dinov2}").module.parameters()} == {torch.float32}


def test_random_initialisation(dinov2: Path) -> None:
    one, again, other = (load(f"hf:{dinov2}@random?seed={s}").info for s in (1, 1, 2))
    assert one.random
    assert one.weights_sha256 == again.weights_sha256 != other.weights_sha256
    assert not load(f"hf:{dinov2}").info.random


def test_truncated_file_is_named(dinov2: Path) -> None:
    file = dinov2 / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"dinov2/model\.safetensors cannot be loaded"):
        load(f"hf:{dinov2}")


def test_naflex_and_unknown_types_are_refused(dinov2: Path) -> None:
    for model_type, match in (("siglip2", "NaFlex"), ("resnet", "unknown Hugging Face model_type 'resnet'")):
        (dinov2 / "config.json").write_text(json.dumps({"model_type": model_type}))
        with pytest.raises(UsageError, match=match):
            load(f"hf:{dinov2}")


def test_remote_code_never_runs(dinov2: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    (dinov2 / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass M: pass\n")
    config = json.loads((dinov2 / "config.json").read_text())
    auto_map = {"AutoConfig": "evil.M", "AutoModel": "evil.M"}
    (dinov2 / "config.json").write_text(json.dumps(copy.deepcopy(config) | {"auto_map": auto_map}))
    load(f"hf:{dinov2}")
    (dinov2 / "config.json").write_text(json.dumps(config | {"auto_map": auto_map, "model_type": "evil"}))
    with pytest.raises(UsageError):
        load(f"hf:{dinov2}")
    assert not marker.exists()


def test_missing_pieces_are_named(dinov2: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(CheckpointError, match="facebook/dinov2-base is not in the local hub cache"):
        load("hf:facebook/dinov2-base")
    (dinov2 / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="dinov2 holds no weights"):
        load(f"hf:{dinov2}")
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        load(f"hf:{tmp_path}")


def test_cached_repository_records_its_commit(dinov2: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commit = "f" * 40
    repo = tmp_path / "hub" / "models--facebook--dinov2-tiny"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    shutil.copytree(dinov2, repo / "snapshots" / commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    hub, local = load("hf:facebook/dinov2-tiny").info, load(f"hf:{dinov2}").info
    assert hub.sources["weights"] == f"hub commit {commit}"
    assert hub.fingerprint == local.fingerprint


def test_size_must_fit_the_patch(dinov2: Path) -> None:
    with pytest.raises(UsageError, match=r"image\.size 60 is no multiple of patch size 8"):
        load(f"hf:{dinov2}?size=60")
    assert load(f"hf:{dinov2}?size=64").info.image.size == 64
