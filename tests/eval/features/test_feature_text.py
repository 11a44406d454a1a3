"""Text embeddings and classifiers through the store."""

from __future__ import annotations

import pytest
import torch
from feature_world import TinyEncoder, shards_in

from mtv.errors import NumericalError, UsageError
from mtv.eval.features import text as text_module
from mtv.eval.features.text import fill


def test_unique_strings_once_and_in_order(provider, encoder, cache):
    strings = ["a dog", "a cat", "a dog", "", "ein Hund\n", "a cat"]
    got = provider().text(strings, kind="caption")
    assert encoder.texts == 4
    assert got.shape == (6, 12)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, TinyEncoder().encode_text(strings, kind="caption"), atol=0, rtol=0)
    again = provider()
    assert torch.equal(again.text(strings[::-1], kind="caption"), got.flip(0))
    assert encoder.texts == 4
    assert (again.stats.text_hits, again.stats.text_misses) == (4, 0)
    provider().text([*strings, "new"], kind="caption")
    assert encoder.texts == 5


def test_kind_and_model_are_part_of_the_key(provider, encoder):
    a = provider().text(["x"], kind="caption")
    b = provider().text(["x"], kind="prompt")
    assert encoder.texts == 2
    assert not torch.equal(a, b)
    other = TinyEncoder(seed=1)
    provider(other).text(["x"], kind="caption")
    assert other.texts == 1


def test_without_cache(provider, encoder, cache):
    strings = ["a", "b", "a"]
    torch.testing.assert_close(provider(cache_dir=None).text(strings), provider().text(strings), atol=0, rtol=0)
    assert provider().text([]).shape == (0, 12)


def test_killed_text_run_keeps_its_blocks(provider, encoder, cache, monkeypatch):
    monkeypatch.setattr(text_module, "BLOCK_STRINGS", 10)
    strings = [f"text {i}" for i in range(35)]
    encode = encoder.encode_text

    def dies(chunk, **k):
        if encoder.texts >= 20:
            raise KeyboardInterrupt
        return encode(chunk, **k)

    monkeypatch.setattr(encoder, "encode_text", dies)
    with pytest.raises(KeyboardInterrupt):
        provider().text(strings)
    fresh = TinyEncoder()
    provider(fresh).text(strings)
    assert fresh.texts == 15


def test_classifier_is_the_mean_of_unit_prompts(provider, encoder):
    names = ["crane", "dog {x}", "crane"]
    templates = ["a photo of a {}.", "{c}", "the {} and the {}"]
    got = provider().classifier(names, templates)
    rows = []
    for name in names:
        prompts = [f"a photo of a {name}.", name, f"the {name} and the {name}"]
        e = TinyEncoder().encode_text(prompts, kind="prompt").double()
        e = (e / e.norm(dim=1, keepdim=True)).mean(0)
        rows.append(e / e.norm())
    torch.testing.assert_close(got.double(), torch.stack(rows), atol=1e-6, rtol=0)
    assert torch.equal(got[0], got[2])


def test_classifier_is_cached_per_class(provider, encoder, cache, monkeypatch):
    monkeypatch.setattr(text_module, "BLOCK_STRINGS", 4)  # two classes per block
    names, templates = ["a", "b", "c", "d", "e"], ["x {}", "y {}"]
    first = provider().classifier(names, templates)
    assert encoder.texts == 10
    assert torch.equal(provider().classifier(names, templates), first)
    assert encoder.texts == 10
    provider().classifier([*names[:4], "E"], templates)
    assert encoder.texts == 12
    provider().classifier(names, [*templates, "z {}"])
    assert encoder.texts == 27
    assert len({p.parent for p in shards_in(cache)}) == 2


def test_template_without_a_place_for_the_name(provider):
    with pytest.raises(UsageError, match=r"'a photo' has no \{\}"):
        provider().classifier(["a"], ["{}", "a photo"])
    with pytest.raises(UsageError, match="needs names and templates"):
        provider().classifier([], ["{}"])


def test_braces_in_names_are_left_alone():
    assert fill("a {} and {c}", "x{}y") == "a x{}y and x{}y"


def test_non_finite_text_is_named_and_not_stored(provider, encoder, cache):
    encoder.after = lambda x: x * torch.tensor([1.0, float("nan")])[:, None]
    with pytest.raises(NumericalError, match="'bad'"):
        provider().text(["good", "bad"])
    assert not list(shards_in(cache))


def test_encoder_without_text_tower(provider, monkeypatch):
    silent = TinyEncoder()
    object.__setattr__(silent.info, "text", None)
    for call in (lambda p: p.text(["a"]), lambda p: p.classifier(["a"], ["{}"])):
        with pytest.raises(UsageError, match="no text tower"):
            call(provider(silent))


def test_equal_class_names_share_a_row(provider, encoder, cache, monkeypatch):
    monkeypatch.setattr(text_module, "BLOCK_STRINGS", 2)
    names = ["missile", "cat", "dog", "missile"]
    weights = provider().classifier(names, ["a {}.", "the {}."])
    assert weights.shape[0] == 4
    assert torch.equal(weights[0], weights[3])
    assert not torch.equal(weights[0], weights[1])
    assert encoder.texts == 6
