"""`NAME=SPEC`: the user's own name for a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtv.encoders.spec import expand_specs, parse_spec
from mtv.errors import UsageError


def test_a_name_in_front_becomes_the_alias() -> None:
    spec = parse_spec("vit-tiny=timm:vit_tiny_patch16_224@random?seed=3&size=64")
    plain = parse_spec("timm:vit_tiny_patch16_224@random?seed=3&size=64")
    assert spec.alias == "vit-tiny"
    assert plain.alias is None
    assert (spec.text, spec.options, spec.random) == (plain.text, plain.options, True)
    assert parse_spec("mine=clip-b16").alias == "mine"
    assert parse_spec("mine=clip-b16").text == parse_spec("clip-b16").text


def test_options_are_not_taken_for_a_name() -> None:
    assert parse_spec("hf:org/name?size=336").alias is None
    assert parse_spec("clip-b16?size=336").alias == "clip-b16"


def test_a_built_in_alias_cannot_be_given_away() -> None:
    with pytest.raises(UsageError, match="built-in alias"):
        parse_spec("clip-b16=timm:vit_tiny_patch16_224@random")


def test_files_of_a_named_directory_get_names_of_their_own(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.safetensors").touch()
    specs = expand_specs([f"run=timm:vit_tiny_patch16_224@{tmp_path}"])
    assert [s.alias for s in specs] == ["run-a", "run-b"]


def test_open_clip_local_dir_is_one_model(tmp_path: Path) -> None:
    home = tmp_path / "my-model"
    home.mkdir()
    (home / "open_clip_config.json").touch()
    (home / "a.safetensors").touch()
    (spec,) = expand_specs([f"open_clip:{home}?size=32"])
    assert (spec.name, spec.file, spec.tag) == ("my-model", str(home), None)
    assert spec.public == "open_clip:./my-model?size=32"
    assert parse_spec(f"open_clip:{home}@random").random


def test_paths_in_options_are_not_published(tmp_path: Path) -> None:
    tokenizer = tmp_path / "spiece.model"
    tokenizer.touch()
    spec = parse_spec(f"hf:org/name?tokenizer={tokenizer}")
    assert spec.public == "hf:org/name?tokenizer=spiece.model"
    assert spec.options["tokenizer"] == str(tokenizer)
