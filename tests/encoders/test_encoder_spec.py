"""Spec strings: the grammar of every scheme, expansion, aliases, errors that help."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtv.encoders.aliases import ALIASES
from mtv.encoders.options import merge_options, reject_options
from mtv.encoders.spec import expand_specs, parse_spec
from mtv.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("open_clip:ViT-B-16-quickgelu/openai", {"name": "ViT-B-16-quickgelu", "tag": "openai", "file": None}),
        ("open_clip:ViT-B-16@dir.v1/weights.pt", {"name": "ViT-B-16", "tag": None, "file": "dir.v1/weights.pt"}),
        ("open_clip:ViT-B-16@C:/w/a.pt", {"name": "ViT-B-16", "file": "C:/w/a.pt"}),
        ("open_clip:ViT-B-16@random?seed=3", {"random": True, "file": None, "options": {"seed": "3"}}),
        ("timm:vit_base_patch14_dinov2.lvd142m", {"name": "vit_base_patch14_dinov2.lvd142m", "file": None}),
        ("timm:a@../x/b@c.pt", {"name": "a", "file": "../x/b@c.pt"}),
        ("hf:Becomebright/MTV-base-patch16-224", {"name": "Becomebright/MTV-base-patch16-224", "revision": None}),
        ("hf:org/name@main", {"name": "org/name", "revision": "main", "random": False}),
        ("hf:./export", {"name": "export", "file": "./export", "revision": None}),
        ("hf:./ex@port@random", {"name": "ex@port", "file": "./ex@port", "random": True}),
        ("hf:/abs/export", {"name": "export", "file": "/abs/export"}),
        ("mtv:runs/b16/step_048828", {"name": "b16", "file": "runs/b16", "tag": "step_048828"}),
        ("mtv:runs/b16", {"name": "b16", "file": "runs/b16", "tag": None}),
        ("python:pkg.mod:build", {"name": "build", "tag": "pkg.mod", "file": None}),
        ("python:C:/m/my.py:build", {"name": "build", "tag": None, "file": "C:/m/my.py"}),
        ("timm:x?mean=0,0,0&size=64", {"options": {"mean": "0,0,0", "size": "64"}}),
        ("timm:x?image.size=64", {"options": {"size": "64"}}),
    ],
)
def test_grammar(text: str, expected: dict[str, object]) -> None:
    spec = parse_spec(text)
    assert spec.scheme == text.split(":")[0]
    for field, value in expected.items():
        assert getattr(spec, field) == value, field


def test_alias_keeps_its_name_and_accepts_options() -> None:
    spec = parse_spec("siglip2-l16?size=384")
    assert (spec.alias, spec.name, spec.tag) == ("siglip2-l16", "ViT-L-16-SigLIP2-256", "webli")
    assert spec.text == "open_clip:ViT-L-16-SigLIP2-256/webli?size=384"


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("clip-b166", "clip-b16"),
        ("timmm:vit", "timm"),
        ("timm:", "nothing follows"),
        ("timm:a@", "empty"),
        ("open_clip:ViT-B-16", "ARCH/TAG"),
        ("hf:name", "ORG/NAME"),
        ("hf:org/name@", "ORG/NAME"),
        ("python:build", "FACTORY"),
        ("python:my-module:build", "dotted module name"),
        ("python:my.py:not valid", "FACTORY"),
        ("timm:x?size", "key=value"),
        ("timm:x?sized=3", "size"),
        ("timm:x?size=3&image.size=4", "twice"),
        ("timm:x?text.size=3", "text.size"),
    ],
)
def test_malformed_specs_say_what_is_meant(text: str, fragment: str) -> None:
    with pytest.raises(UsageError, match=r".") as caught:
        parse_spec(text)
    assert fragment in str(caught.value)


def test_local_twin_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "export").mkdir()
    with pytest.raises(UsageError, match=r"also exists locally: write \./export"):
        parse_spec("hf:export")
    with pytest.raises(UsageError, match="also exists locally"):
        parse_spec("export")


def test_public_form_has_no_directories(tmp_path: Path) -> None:
    assert parse_spec(f"timm:a@{tmp_path}/w.pt?size=32").public == "timm:a@w.pt?size=32"
    assert parse_spec(f"hf:{tmp_path}/export").public == "hf:./export"
    assert parse_spec("timm:a.b").public == "timm:a.b"


def test_expansion_of_lists_and_directories(tmp_path: Path) -> None:
    weights = tmp_path / "runs"
    weights.mkdir()
    for name in ("b.pt", "a.safetensors", "c.bin", "notes.txt"):
        (weights / name).touch()
    listing = tmp_path / "specs.txt"
    listing.write_text(
        f"# models\nclip-b16  # the baseline\n\nopen_clip:ViT-B-16@{weights}/?quick_gelu=true\nclip-b16\n"
    )
    specs = expand_specs([f"@{listing}", f"timm:vit_tiny_patch16_224@{weights}"])
    files = [Path(s.file).name if s.file else s.alias for s in specs]
    assert files == ["clip-b16", "a.safetensors", "b.pt", "c.bin", "a.safetensors", "b.pt", "c.bin"]
    assert specs[1].text == f"open_clip:ViT-B-16@{weights}/a.safetensors?quick_gelu=true"
    assert parse_spec(specs[4].text) == specs[4]


def test_expansion_errors_name_the_place(tmp_path: Path) -> None:
    listing = tmp_path / "specs.txt"
    listing.write_text("clip-b16\nclip-b17\n")
    with pytest.raises(UsageError, match=r"specs\.txt:2.*clip-b1"):
        expand_specs([f"@{listing}"])
    with pytest.raises(UsageError, match="no checkpoint"):
        expand_specs([f"timm:vit_tiny_patch16_224@{tmp_path}"])
    with pytest.raises(UsageError, match="cannot read"):
        expand_specs([f"@{tmp_path}/missing.txt"])
    listing.write_text("# nothing\n")
    with pytest.raises(UsageError, match="no model spec"):
        expand_specs([f"@{listing}"])


@given(
    st.from_regex(r"[a-z][a-z0-9_]{0,20}(\.[a-z0-9_]{1,10})?", fullmatch=True),
    st.one_of(st.none(), st.from_regex(r"[\w./-]{1,30}", fullmatch=True).filter(lambda f: f != "random")),
    st.dictionaries(st.sampled_from(["size", "seed", "length"]), st.integers(0, 999).map(str), max_size=3),
)
def test_text_parses_to_itself(name: str, file: str | None, options: dict[str, str]) -> None:
    tail = "&".join(f"{k}={v}" for k, v in options.items())
    spec = parse_spec(f"timm:{name}" + (f"@{file}" if file else "") + (f"?{tail}" if tail else ""))
    assert (spec.name, spec.file, spec.options) == (name, file, options)
    assert parse_spec(spec.text).text == spec.text


def test_options_are_typed_and_merged() -> None:
    spec = parse_spec("timm:x?mean=0.5,0.25,0&quick_gelu=true&allow_missing=head.*,norm.*&size=64")
    merged = merge_options(spec.options, {"image.size": 96, "text.cleaning": "none", "bos": "none"})
    assert merged == {
        "mean": (0.5, 0.25, 0.0),
        "quick_gelu": True,
        "allow_missing": ("head.*", "norm.*"),
        "size": 96,
        "cleaning": "none",
        "bos": None,
    }


@pytest.mark.parametrize("option", ["size=big", "mean=1,2", "quick_gelu=maybe", "crop_pct=x"])
def test_option_values_that_do_not_parse(option: str) -> None:
    with pytest.raises(UsageError, match=option.split("=")[0]):
        merge_options(parse_spec(f"timm:x?{option}").options)


def test_reject_options_names_the_option() -> None:
    with pytest.raises(UsageError, match=r"length=3.*no text"):
        reject_options({"length": 3}, ("length",), "no text")
    reject_options({"size": 3}, ("length",), "no text")


def test_importing_the_package_loads_no_torch() -> None:
    code = (
        "import sys, mtv.encoders as e, mtv.encoders.policy, mtv.encoders.hub;"
        "e.parse_spec('clip-b16'); e.ImageRecord;"
        "sys.exit(any(m in sys.modules for m in ('torch', 'timm', 'open_clip', 'transformers', 'PIL')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_alias_is_parsed() -> None:
    for name, row in ALIASES.items():
        assert name == row.name
        assert parse_spec(name).scheme == row.spec.split(":")[0]
