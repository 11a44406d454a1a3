"""Prompt lists: Z1 and Z6 of the protocol page."""

from __future__ import annotations

import string
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mtv.errors import DataError, UsageError
from mtv.hashing import sha256_text
from mtv.probes.classification import classifier
from mtv.probes.templates import TEMPLATE_SETS, fill, list_hash, load_class_names, load_templates


def test_z1_published_hashes_and_counts() -> None:
    names, templates = load_class_names("imagenet"), load_templates("openai80")
    assert (len(names), len(templates)) == (1000, 80)
    assert list_hash(names) == "571ae1c583b4be7da87519494c52bf405a46af05d5815627c7a0dee997068b60"
    assert list_hash(templates) == "4f976686fb651bb5803d4689dcd849f75efe0ef19a3c801355bc9a6f03c8a5af"
    assert [names.index("missile"), names.index("sunglasses")] == [657, 836]
    assert (names[744], names[837], len(set(names))) == ("missile", "sunglasses", 998)
    assert len({name.lower() for name in names}) == 998
    assert sum(name != name.lower() for name in names) == 155
    assert sum(any(c in string.punctuation for c in name) for name in names) == 43


def test_z1_longest_prompt_has_22_clip_tokens() -> None:
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()

    def length(prompt: str) -> int:
        return len(tokenizer.encode(prompt)) + 2  # start and end

    names, templates = load_class_names("imagenet"), load_templates("openai80")
    # Tokens split at white space, so the longest prompt has one of the longest templates and one of the longest names.
    long_names = sorted(set(names), key=length)[-30:]
    long_templates = sorted(templates, key=lambda t: length(t.replace("{}", "x")))[-20:]
    prompts = {p: length(p) for name in long_names for p in fill(long_templates, name)}
    assert length("a {}.".replace("{}", "x")) < min(length(t) for t in long_templates)
    longest = max(prompts, key=lambda p: prompts[p])
    assert longest == "a jpeg corrupted photo of a Mexican hairless dog (xoloitzcuintli)."
    assert prompts[longest] == 22


def test_sets_and_their_sizes() -> None:
    sizes = {name: len(load_templates(name)) for name in TEMPLATE_SETS}
    assert sizes == {"openai80": 80, "siglip81": 81, "siglip8": 8, "openai7": 7, "one": 1}
    assert load_templates("siglip81") == (*load_templates("openai80"), "{}")
    assert load_templates("siglip8") == (*load_templates("openai7"), "{}")
    assert load_templates("one") == ("a photo of {}.",)
    assert "itap of a {}." in load_templates("openai7")
    assert all(t.count("{}") == 1 for name in TEMPLATE_SETS for t in load_templates(name))
    assert len({list_hash(load_templates(name)) for name in TEMPLATE_SETS}) == 5


def test_z6_trailing_newlines_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("a photo of a {}.\na drawing of a {}.")
    (tmp_path / "messy.txt").write_bytes("\ufeff  a photo of a {c}.  \r\n\r\n\na drawing of a {}.\t\n\n\n".encode())
    plain, messy = (load_templates(str(tmp_path / name)) for name in ("plain.txt", "messy.txt"))
    assert plain == messy == ("a photo of a {}.", "a drawing of a {}.")

    def embed(prompt: str) -> torch.Tensor:
        return torch.randn(16, generator=torch.Generator().manual_seed(int(sha256_text(prompt)[:8], 16)))

    def weights(templates: tuple[str, ...]) -> torch.Tensor:
        return classifier(torch.stack([torch.stack([embed(p) for p in fill(templates, n)]) for n in ("cat", "dog")]))

    assert torch.equal(weights(plain), weights(messy))
    assert not torch.equal(weights(plain), weights(plain[:1]))


def test_z6_line_without_placeholder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("a photo of a {}.\n\na drawing of a cat.\n")
    with pytest.raises(DataError, match=r"mine\.txt, line 3: no \{\} or \{c\} in 'a drawing of a cat\.'"):
        load_templates(str(path))
    path.write_text("\n\n")
    with pytest.raises(DataError, match="holds no template"):
        load_templates(str(path))
    path.write_bytes(b"caf\xe9 {}\n")
    with pytest.raises(DataError, match="not UTF-8"):
        load_templates(str(path))


def test_unknown_names_suggest_the_known() -> None:
    with pytest.raises(UsageError, match=r"unknown template set 'openai8'; did you mean .*openai80.*file of that name"):
        load_templates("openai8")
    with pytest.raises(UsageError, match="unknown class name set 'imagnet'; did you mean imagenet"):
        load_class_names("imagnet")


def test_custom_class_names(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("tench \n great white shark\nc{}t\n\n")
    assert load_class_names(str(path)) == ("tench", "great white shark", "c{}t")
    assert fill(("a {}.", "{} and {}"), "c{}t") == ["a c{}t.", "c{}t and c{}t"]
    path.write_text("tench\n\nshark\n")
    with pytest.raises(DataError, match=r"names\.txt, line 2 is blank"):
        load_class_names(str(path))
    path.write_text("tench\n")
    with pytest.raises(DataError, match="holds 1 class names"):
        load_class_names(str(path))


def test_lists_load_without_torch_or_open_clip() -> None:
    code = (
        "import sys; from mtv.probes.templates import load_templates, load_class_names;"
        "load_templates('siglip81'); load_class_names('imagenet');"
        "print(sorted({'torch', 'open_clip', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
