"""The streaming head trainer: against plain modules, resumed, repeated, diverging; order and choice of heads."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mtv.encoders import load
from mtv.errors import CheckpointError, DataError, NumericalError, UsageError
from mtv.probes.segmentation_head import HeadConfig, LinearHead
from mtv.probes.segmentation_metric import AreaCounts, count_areas, no_areas, score_areas, sum_areas
from mtv.probes.segmentation_order import batch_positions, split_held_out
from mtv.probes.segmentation_selection import best_head, held_out_areas
from mtv.probes.segmentation_stream import HeadTrainer, StreamConfig, TokenBatch

HEAD = HeadConfig(width=24, n_classes=6)
CONFIG = StreamConfig(head=HEAD, iters=30, lrs=(1e-3, 1e-2))
IGN = 255
CLASSES = torch.randn(6, 24, generator=torch.Generator().manual_seed(99))
"""Mean token of each class."""


def world(n: int, *, grid: int = 6, patch: int = 8, noise: float = 1.0, seed: int = 0) -> TokenBatch:
    """Windows whose tokens are their class's mean plus noise; 4 classes, a border of mixed and ignored pixels."""
    g = torch.Generator().manual_seed(seed)
    of_patch = F.interpolate(torch.randint(0, 4, (n, 1, 3, 3), generator=g).double(), size=(grid, grid))[:, 0].long()
    tokens = 2 + 3 * (CLASSES[of_patch] + noise * torch.randn(n, grid, grid, 24, generator=g))
    labels = of_patch.repeat_interleave(patch, 1).repeat_interleave(patch, 2).to(torch.uint8)
    labels[torch.rand(labels.shape, generator=g) < 0.1] = 5
    labels[torch.rand(labels.shape, generator=g) < 0.1] = IGN
    return TokenBatch(tokens_BhwD=tokens, labels_BHW=labels)


TRAIN = world(20)


def batch_at(iteration: int) -> TokenBatch:
    rows = torch.from_numpy(batch_positions(iteration, n=20, batch=8))
    return TokenBatch(tokens_BhwD=TRAIN.tokens_BhwD[rows], labels_BHW=TRAIN.labels_BHW[rows])


def trained(config: StreamConfig = CONFIG, *, until: int | None = None) -> HeadTrainer:
    trainer = HeadTrainer(config)
    trainer.run(batch_at, until=until)
    return trainer


def weights(trainer: HeadTrainer) -> list[torch.Tensor]:
    return [value.clone() for head in trainer.heads for value in head.state_dict().values()]


def same(a: HeadTrainer, b: HeadTrainer) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


@pytest.mark.parametrize("loss", ["patch", "pixel"])
@pytest.mark.parametrize("bn", [True, False])
def test_equals_plain_modules(loss: str, bn: bool) -> None:
    """Norm and convolution as modules, full-size logits, one optimiser per head, torch's schedule by hand."""
    config = replace(CONFIG, head=replace(HEAD, bn=bn), loss=loss, iters=12, warmup=0.25)  # type: ignore[arg-type]
    losses: list[list[float]] = []
    trainer = HeadTrainer(config)
    trainer.run(batch_at, after_step=lambda done, values: losses.append(values))
    assert trainer.iteration == len(losses) == 12
    mode = {"mode": "nearest"} if loss == "patch" else {"mode": "bilinear", "align_corners": False}
    for k, lr in enumerate(config.lrs):
        head = LinearHead(config.head, seed=config.seed).train()
        optimizer = torch.optim.AdamW(head.parameters(), lr=lr, betas=(0.9, 0.999), weight_decay=1e-4)
        for t in range(12):
            batch = batch_at(t)
            full = F.interpolate(head(batch.tokens_BhwD.permute(0, 3, 1, 2)), batch.labels_BHW.shape[1:], **mode)  # type: ignore[arg-type]
            value = F.cross_entropy(full, batch.labels_BHW.long(), ignore_index=IGN, reduction="sum")
            value = value / batch.labels_BHW.numel()
            assert losses[t][k] == pytest.approx(value.item(), rel=2e-4)
            optimizer.param_groups[0]["lr"] = lr * (1e-6 + (1 - 1e-6) * t / 2 if t < 3 else 1 - (t - 3) / 8)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        x = TRAIN.tokens_BhwD.permute(0, 3, 1, 2)
        torch.testing.assert_close(trainer.heads[k].eval()(x), head.eval()(x), atol=2e-3, rtol=0)
        if head.norm is not None:
            ours = trainer.heads[k].norm
            assert ours is not None
            for name in ("running_mean", "running_var"):
                torch.testing.assert_close(getattr(ours, name), getattr(head.norm, name), atol=1e-4, rtol=1e-5)
    assert losses[-1][1] < 0.9 * losses[0][1]


def test_heads_do_not_know_of_each_other() -> None:
    both, alone = trained(), trained(replace(CONFIG, lrs=(1e-2,)))
    for x, y in zip(both.heads[1].state_dict().values(), alone.heads[0].state_dict().values(), strict=True):
        assert torch.equal(x, y)


def test_t14_one_seed_twice_and_resumed() -> None:
    straight = trained()
    assert same(straight, trained())
    assert not same(straight, trained(replace(CONFIG, seed=1)))
    first = trained(until=13)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = HeadTrainer(CONFIG)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.iteration == 13
    second.run(batch_at)
    assert second.iteration == 30
    assert same(straight, second)
    held = world(6, seed=5)
    for a, b in zip(held_out_areas(straight.heads, [held]), held_out_areas(second.heads, [held]), strict=True):
        for name in ("intersection_C", "predicted_C", "labelled_C"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_a_snapshot_stays_what_it_was() -> None:
    trainer = trained(until=5)
    state, before = trainer.state_dict(), weights(trainer)
    trainer.run(batch_at)
    again = HeadTrainer(CONFIG)
    again.load_state_dict(state)
    assert all(torch.equal(x, y) for x, y in zip(weights(again), before, strict=True))


def test_a_snapshot_of_another_run_is_refused() -> None:
    state = trained(until=1).state_dict()
    with pytest.raises(CheckpointError, match=r"another iters, wd: \{'iters': 30, 'wd': 0.0001\}"):
        HeadTrainer(replace(CONFIG, iters=40, wd=0.0)).load_state_dict(state)


def test_features_that_are_not_finite_are_named() -> None:
    trainer = trained(until=3)
    before, bad = weights(trainer), batch_at(3)
    bad.tokens_BhwD[4, 2, 1, 7] = torch.inf
    with pytest.raises(NumericalError, match=r"tokens of the batch at iteration 3 of row 4 are not finite \(1 of 8"):
        trainer.step(bad)
    assert trainer.iteration == 3
    assert all(torch.equal(x, y) for x, y in zip(weights(trainer), before, strict=True)), "running statistics too"


def test_divergence_names_the_step_and_keeps_the_last_good_heads() -> None:
    trainer = HeadTrainer(replace(CONFIG, lrs=(1e-3, 1e37), warmup=0.0))
    states: list[list[torch.Tensor]] = []
    with pytest.raises(
        NumericalError,
        match=r"lr 1e\+37 diverged at iteration 1 \(loss (nan|inf)\); all heads are kept as after 1 good",
    ):
        trainer.run(batch_at, after_step=lambda done, losses: states.append(weights(trainer)))
    assert len(states) == trainer.iteration == 1
    assert all(torch.equal(x, y) for x, y in zip(weights(trainer), states[0], strict=True))


def test_gradients_that_are_not_finite_change_no_head() -> None:
    trainer = trained(until=2)
    before = weights(trainer)
    trainer.heads[1].conv.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(NumericalError, match=r"lr 0.01 diverged at iteration 2 \(loss \d"):
        trainer.step(batch_at(2))
    assert all(torch.equal(x, y) for x, y in zip(weights(trainer), before, strict=True))


@pytest.mark.parametrize("loss", ["patch", "pixel"])
def test_learns_and_is_chosen_on_held_out_windows(loss: str) -> None:
    config = replace(CONFIG, lrs=(1e-6, 1e-2, 1e-4), iters=40, loss=loss)  # type: ignore[arg-type]
    trainer = trained(config)
    held = world(8, seed=3)
    areas = held_out_areas(trainer.heads, [held])
    mious = [score_areas(a).miou for a in areas]
    assert best_head(areas) == 1
    # 5 classes are labelled; the fifth is noise that nothing can predict.
    assert mious[1] > 60
    assert mious[1] > mious[0] + 20
    split = held_out_areas(
        trainer.heads,
        (TokenBatch(tokens_BhwD=held.tokens_BhwD[i : i + 5], labels_BHW=held.labels_BHW[i : i + 5]) for i in (0, 5)),
    )
    assert [a.intersection_C.tolist() for a in split] == [a.intersection_C.tolist() for a in areas]
    for k, head in enumerate(trainer.heads):
        assert head.training, "held-out scoring leaves the heads as they are"
        head.eval()
        full = F.interpolate(head(held.tokens_BhwD.permute(0, 3, 1, 2)), (48, 48), mode="bilinear", align_corners=False)
        naive = [count_areas(p, y, 6) for p, y in zip(full.argmax(1), held.labels_BHW, strict=True)]
        assert sum_areas(naive, 6).intersection_C.tolist() == areas[k].intersection_C.tolist()
        assert sum_areas(naive, 6).predicted_C.tolist() == areas[k].predicted_C.tolist()


def test_half_precision_tokens_are_cast() -> None:
    half = TokenBatch(tokens_BhwD=TRAIN.tokens_BhwD.half(), labels_BHW=TRAIN.labels_BHW)
    cast = TokenBatch(tokens_BhwD=half.tokens_BhwD.float(), labels_BHW=TRAIN.labels_BHW)
    a, b = HeadTrainer(CONFIG), HeadTrainer(CONFIG)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = a.step(half)
    assert losses == b.step(cast)
    assert same(a, b)


def test_t13_only_grid_tokens_reach_the_head() -> None:
    encoder = load("timm:vit_tiny_patch16_224@random")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tokens = encoder.features(images, layers=[-1], norm="final").tokens[encoder.depth - 1]
    assert tuple(tokens.shape) == (2, 4, 4, 192)
    labels = torch.zeros(2, 64, 64, dtype=torch.uint8)
    trainer = HeadTrainer(replace(CONFIG, head=replace(HEAD, width=192)))
    trainer.step(TokenBatch(tokens_BhwD=tokens, labels_BHW=labels))
    with_prefix = torch.cat([tokens.flatten(1, 2)[:, :1], tokens.flatten(1, 2)], dim=1)  # 17 tokens
    for grid in (with_prefix[:, None], with_prefix[:, :, None], tokens[:, :, :3]):
        with pytest.raises(UsageError, match=r"(?s)do not fit labels \(2, 64, 64\).*Prefix tokens"):
            TokenBatch(tokens_BhwD=grid, labels_BHW=labels)


def test_inputs_are_checked() -> None:
    trainer = HeadTrainer(CONFIG)
    with pytest.raises(UsageError, match="tokens have 23 channels, the heads 24"):
        trainer.step(TokenBatch(tokens_BhwD=TRAIN.tokens_BhwD[..., :23], labels_BHW=TRAIN.labels_BHW))
    with pytest.raises(DataError, match="label 6 is neither a class 0 to 5"):
        trainer.step(TokenBatch(tokens_BhwD=TRAIN.tokens_BhwD, labels_BHW=torch.full_like(TRAIN.labels_BHW, 6)))
    assert trainer.iteration == 0
    done = trained(replace(CONFIG, iters=1))
    with pytest.raises(UsageError, match="iteration"):
        done.step(batch_at(1))
    for wrong, name in (({"lrs": ()}, "lrs"), ({"lrs": (1e-3, 0.0)}, "lrs"), ({"wd": -1.0}, "wd"),
                        ({"warmup": 1.0}, "warmup"), ({"loss": "pixels"}, "loss"), ({"loss_mean": "x"}, "loss_mean"),
                        ({"iters": 0}, "iters")):  # fmt: skip
        with pytest.raises(UsageError, match=name):
            StreamConfig(**{"head": HEAD, "iters": 3, **wrong})  # type: ignore[arg-type]


def test_best_head_takes_the_first_of_a_tie() -> None:
    def areas(correct: int) -> AreaCounts:
        return AreaCounts(
            intersection_C=np.array([correct, 0]), predicted_C=np.array([10, 0]), labelled_C=np.array([10, 0])
        )

    assert best_head([areas(3), areas(7), areas(7)]) == 1
    with pytest.raises(UsageError, match="no head"):
        best_head([])
    with pytest.raises(DataError, match="not a single labelled"):
        best_head([no_areas(3)])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 70), st.integers(0, 5))
def test_batches_are_the_endless_row_of_permutations(n: int, batch: int, seed: int) -> None:
    def endless() -> Callable[[], int]:
        row: list[int] = []
        epoch = 0

        def take() -> int:
            nonlocal epoch
            if not row:
                row.extend(np.random.default_rng([seed, epoch]).permutation(n).tolist())
                epoch += 1
            return row.pop(0)

        return take

    take = endless()
    drawn = []
    for iteration in range(8):
        positions = batch_positions(iteration, n=n, batch=batch, seed=seed)
        assert positions.dtype == np.int64
        assert positions.tolist() == sorted(take() for _ in range(batch))
        drawn += positions.tolist()
    seen = np.bincount(drawn, minlength=n)
    assert seen.max() - seen.min() <= 1
    assert batch_positions(3, n=n, batch=batch, seed=seed).tolist() == drawn[3 * batch : 4 * batch]


def test_fast_preset_sees_each_window_ten_times() -> None:
    seen = np.bincount(np.concatenate([batch_positions(t, n=1920, batch=32) for t in islice(range(600), 600)]))
    assert (seen == 10).all()
    assert batch_positions(0, n=1920, batch=32).tolist() != batch_positions(60, n=1920, batch=32).tolist()


def test_held_out_split() -> None:
    train, held = split_held_out(20_210, 1010)
    assert (len(train), len(held)) == (19_200, 1010)
    assert np.array_equal(np.sort(np.concatenate([train, held])), np.arange(20_210))
    assert np.array_equal(held, np.sort(held))
    again, other = split_held_out(20_210, 1010), split_held_out(20_210, 1010, seed=1)
    assert np.array_equal(held, again[1])
    assert not np.array_equal(held, other[1])
    for wrong in (0, 5):
        with pytest.raises(UsageError, match=r"held_out must be 1 to 4"):
            split_held_out(5, wrong)
    with pytest.raises(UsageError, match="need iteration"):
        batch_positions(0, n=0, batch=3)
