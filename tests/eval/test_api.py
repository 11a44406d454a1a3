"""`mtv.eval.evaluate` inside a training loop: the run must not notice, and the numbers must be the command line's."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from run_helpers import Answer, same_outcome, stored
from run_world import write_imagenet, write_sevenscenes
from torch import nn

from mtv.encoders import load
from mtv.errors import DataError, MtvError, UsageError
from mtv.eval import evaluate

Cli = Callable[..., Answer]


def tiny_module(tiny: str, factory: str = "build") -> nn.Module:
    """A fresh module, trainable, as a training script would hold it."""
    from mtv.encoders.python_import import import_factory
    from mtv.encoders.spec import parse_spec

    module: nn.Module = import_factory(parse_spec(f"{tiny}:{factory}"))[0]()
    return module


def random_states() -> list[Any]:
    return [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()]  # type: ignore[index]


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


def test_a_training_run_does_not_notice(tiny: str, world: Path) -> None:
    """Modes (frozen batch norm too), requires_grad, gradients, buffers and random numbers stay; training goes on."""
    module = tiny_module(tiny).train()
    module.norm.eval()  # type: ignore[union-attr]
    module.words.weight.requires_grad_(False)  # type: ignore[union-attr]
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    module(torch.randn(2, 3, 32, 32))[0].square().mean().backward()
    modes = {n: m.training for n, m in module.named_modules()}
    grads = {n: (p.requires_grad, None if p.grad is None else p.grad.clone()) for n, p in module.named_parameters()}
    weights, states = state_of(module), random_states()
    results = evaluate(module, ["knn", "coco"], world, overrides={"knn": {"k": 3}})
    assert random_states() == states
    assert {n: m.training for n, m in module.named_modules()} == modes
    for name, parameter in module.named_parameters():
        assert parameter.requires_grad == grads[name][0]
        assert torch.equal(parameter.grad, grads[name][1]) if parameter.grad is not None else grads[name][1] is None
    for name, value in module.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert torch.is_grad_enabled()
    assert [r.status for r in results] == ["complete", "complete"]
    optimizer.step()
    module(torch.randn(2, 3, 32, 32))[0].sum().backward()


def test_scores_follow_the_weights_through_training(tiny: str, world: Path) -> None:
    """Epochs that pull each picture to its class: the record's fingerprint moves with the weights, and kNN rises."""
    module = tiny_module(tiny)
    paths = sorted((world / "imagenet" / "val").rglob("*.JPEG"))
    classes = sorted({p.parent.name for p in paths})
    labels = torch.tensor([classes.index(p.parent.name) for p in paths])
    pixels = torch.stack([load(f"{tiny}:build").transform()(Image.open(p).convert("RGB")) for p in paths])
    x = (pixels.float() / 255 - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / torch.tensor([0.25, 0.2, 0.3])[
        :, None, None
    ]
    head, history = nn.Linear(24, 5), []
    optimizer = torch.optim.Adam([*module.parameters(), *head.parameters()], lr=3e-3)
    for epoch in range(5):
        (result,) = evaluate(module.train(), "knn", world, overrides={"knn": {"k": 3}})
        assert result.headline is not None
        history.append((result.model["fingerprint"], result.headline[1].value))
        for _ in range(12):
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(module(x)[1]), labels).backward()
            optimizer.step()
        assert module.training, epoch
    assert len({fingerprint for fingerprint, _ in history}) == 5
    assert (history[-1][1] or 0) > (history[0][1] or 0) + 20


def test_results_equal_those_of_the_command_line(tiny: str, world: Path, tmp_path: Path, cli: Cli) -> None:
    """Same keys too: the module's class is in the file that the spec names, so later runs skip what is stored."""
    sets = ["--set", "knn.k=3", "--set", "spair.size=64", "--workers", 0, "--batch-size", 3]
    args = ["-t", "knn", "-t", "coco", "-t", "spair", "--data", world, "--no-cache", "--no-artefacts"]
    assert cli("run", "-m", f"{tiny}:build", *args, *sets, "--out", tmp_path / "cli").code == 0
    overrides = {"knn": {"k": 3}, "spair": {"size": 64}}
    evaluate(tiny_module(tiny).train(), ["knn", "coco", "spair"], world, overrides=overrides, out=tmp_path / "api")
    by_cli = {task: found for (_, task), found in stored(tmp_path / "cli").items()}
    by_api = {task: found for (_, task), found in stored(tmp_path / "api").items()}
    assert list(by_cli) == list(by_api) == ["coco", "knn", "spair"]
    for task, found in by_cli.items():
        same_outcome(found, by_api[task])


def test_specs_encoders_and_modules_are_accepted(tiny: str, world: Path, tmp_path: Path) -> None:
    encoder = load(f"{tiny}:build")
    values = [
        evaluate(model, "knn", str(world), limit=10, cache=tmp_path / "c")[0].metrics["knn/top1"].value
        for model in (f"{tiny}:build", encoder, tiny_module(tiny))
    ]
    assert values[0] == values[1] == values[2]
    assert not encoder.module.training


def test_only_the_first_call_computes_when_there_is_a_cache(tiny: str, world: Path, tmp_path: Path) -> None:
    hits = [
        evaluate(tiny_module(tiny), "knn", world, cache=tmp_path / "cache")[0].run["cache"]["hits"] for _ in range(2)
    ]
    assert hits == [0, 16]


def test_a_suite_skips_what_does_not_suit(tiny: str, tmp_path: Path) -> None:
    write_imagenet(tmp_path / "data")
    write_sevenscenes(tmp_path / "data")
    results = evaluate(tiny_module(tiny, "without_text"), ["knn", "real"], tmp_path / "data", strict=False)
    missing = ("coco", "flickr8k", "spair", "nyuv2", "camvid", "nyu40")
    assert {r.task: r.status for r in results} == {
        "knn": "complete", **dict.fromkeys(missing, "failed"), "sevenscenes": "complete",
    }  # fmt: skip


def test_strict_raises_before_any_forward_pass_when_data_are_missing(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the failure is a result like any other."""
    write_imagenet(tmp_path / "data")
    monkeypatch.setenv("TINY_LOG", str(tmp_path / "log"))
    with pytest.raises(DataError, match=r"spair: .*") as caught:
        evaluate(tiny_module(tiny), ["knn", "spair"], tmp_path / "data")
    assert "SPair-71k" in str(caught.value)
    assert not (tmp_path / "log").exists()
    results = evaluate(tiny_module(tiny), ["knn", "spair"], tmp_path / "data", strict=False)
    assert [r.status for r in results] == ["complete", "failed"]
    assert (tmp_path / "log").exists()


def test_failures_give_the_module_back_unchanged(tiny: str, world: Path) -> None:
    """A picture on which the model overflows: NumericalError names it; modes and random numbers come back."""
    from mtv.errors import NumericalError

    module = tiny_module(tiny, "infinite_everywhere").train()
    states = random_states()
    with pytest.raises(NumericalError, match=r"knn: pooled of sample 'ILSVRC2012_val_00000001' .* not finite"):
        evaluate(module, "knn", world)
    assert module.training
    assert random_states() == states


def test_wrong_arguments_are_named(tiny: str, world: Path) -> None:
    module = tiny_module(tiny)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"tasks": "imagnet"}, "did you mean imagenet"),
        ({"protocol": "papr"}, "did you mean paper"),
        ({"overrides": {"spiar": {}}}, "unknown task in overrides 'spiar'; did you mean spair"),
        ({"overrides": {"spair": {"sizes": 3}}}, "unknown field spair.sizes"),
        ({"device": "cudaa"}, "unknown device 'cudaa'"),
        ({"limit": 0}, "limit must be at least 1"),
    ]
    for changes, message in cases:
        with pytest.raises(UsageError, match=message):
            evaluate(module, **{"tasks": ["spair"], "data": world, **changes})
    with pytest.raises(UsageError, match="no floating-point dtype"):
        evaluate(nn.Identity(), "knn", world)
    with pytest.raises(UsageError, match=r"torch\.float64"):
        evaluate(module.double(), "knn", world)
    convolution = nn.Conv2d(3, 4, 8, 8)
    with pytest.raises(UsageError, match="unresolved image fields: size"):
        evaluate(convolution, "knn", world)
    convolution.size = 32  # type: ignore[assignment]
    with pytest.raises(UsageError, match="integer attribute patch_size"):
        evaluate(convolution, "knn", world)
    with pytest.raises(MtvError, match="no such directory"):
        evaluate(tiny_module(tiny), "knn", world / "nowhere")


def test_half_precision_modules_are_measured_as_they_are(tiny: str, world: Path) -> None:
    module = tiny_module(tiny).bfloat16()
    (result,) = evaluate(module, "knn", world)
    assert result.protocol["params"]["tower_dtype"] == "bf16"
    assert result.run["tower_dtype"] == "bfloat16"
    assert module.patch.weight.dtype == torch.bfloat16  # type: ignore[union-attr]


def test_an_encoder_with_a_float32_head_beside_its_tower_is_measured(tiny: str, world: Path) -> None:
    encoder = load(f"{tiny}:build").to(dtype=torch.bfloat16)
    encoder.module.add_module("depth_neck", nn.Linear(2, 2))
    (result,) = evaluate(encoder, "knn", world)
    assert result.protocol["params"]["tower_dtype"] == "bf16"
    with pytest.raises(UsageError, match=r"torch\.bfloat16, torch\.float32"):
        evaluate(encoder.module, "knn", world)
