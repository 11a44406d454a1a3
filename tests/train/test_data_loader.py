"""The loader: the same batches for any workers, ranks and resumption; consistent geometry; only what is needed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_world import DEPTH, REGIONS, ByteTokenizer, write_corpus

from mtv.errors import MtvError, UsageError
from mtv.shards import ShardDataset
from mtv.train.data.batch import Batch, Needs
from mtv.train.data.loader import Loader, Position
from mtv.train.data.options import DataOptions, ViewOptions
from mtv.train.data.text import name_id
from mtv.train.data.workers import GRACE_SECONDS

ALL = Needs(locals=True, mask=True, regions=True, depth=True)
VIEWS = ViewOptions(local_crops=2, local_size=16, min_side_px=3, global_flip=0.5)


def loader(dataset: ShardDataset, *, needs: Needs = ALL, views: ViewOptions = VIEWS, **more: Any) -> Loader:
    data = {"canvas": 48, "depth_canvas": 40, "workers": 0, "block_shards": 2, "max_bad": 3}
    data |= {k: more.pop(k) for k in list(more) if k in DataOptions.__dataclass_fields__}
    fields = {"image_size": 32, "patch_size": 8, "seed": 0, "tokenizer": ByteTokenizer(), "global_batch": 12} | more
    return Loader(dataset, data=DataOptions(**data), views=views, needs=needs, **fields)


def take(made: Loader, samples_seen: int = 0, steps: int = 4) -> list[tuple[Batch, Position]]:
    return list(made.batches(samples_seen, stop=samples_seen + steps * made.global_batch))


def same(a: list[tuple[Batch, Position]], b: list[tuple[Batch, Position]]) -> None:
    assert len(a) == len(b) > 0
    for (left, at_left), (right, at_right) in zip(a, b, strict=True):
        assert at_left == at_right
        equal_batches(left, right)


def equal_batches(left: Batch, right: Batch) -> None:
    assert left.keys == right.keys
    for name, value in vars(left).items():
        if name != "keys":
            assert torch.equal(value, getattr(right, name)), name


def test_workers_cache_and_where_views_are_made_change_nothing(data_corpus: ShardDataset) -> None:
    plain = take(loader(data_corpus))
    same(plain, take(loader(data_corpus, workers=1)))
    same(plain, take(loader(data_corpus, workers=2, prefetch=1, cache=1 << 20)))
    same(plain, take(loader(data_corpus, cache=1 << 24)))
    same(plain, take(loader(data_corpus, cache=60_000)))  # not all fit
    same(plain, take(loader(data_corpus, workers=2, augment="worker")))


def test_a_second_epoch_from_the_cache_equals_one_decoded_again(data_corpus: ShardDataset) -> None:
    cached = loader(data_corpus, cache=1 << 24)
    take(cached, steps=6)
    cached.take_waits()
    same(take(cached, 72, 3), take(loader(data_corpus), 72, 3))
    assert cached.take_waits().read == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_goes_on_exactly(data_corpus: ShardDataset, workers: int) -> None:
    straight = take(loader(data_corpus), steps=7)  # 84 samples of epochs of 32
    same(straight[3:], take(loader(data_corpus, workers=workers), samples_seen=36, steps=4))
    assert [p.epoch for _, p in straight] == [0, 0, 0, 1, 1, 1, 2]
    assert [p.samples_seen for _, p in straight] == [12 * k for k in range(1, 8)]


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (4, 1), (1, 3), (2, 3)])
def test_x4_ranks_and_micro_batches_share_the_steps_of_one_process(
    data_corpus: ShardDataset, world: int, accumulate: int
) -> None:
    one = take(loader(data_corpus), steps=3)
    ranks = [take(loader(data_corpus, rank=r, world=world, accumulate=accumulate), steps=3) for r in range(world)]
    for step, (whole, _) in enumerate(one):
        parts = [ranks[r][step * accumulate + a] for a in range(accumulate) for r in range(world)]
        assert [p.micro for _, p in parts] == [a for a in range(accumulate) for _ in range(world)]
        assert {p.start for _, p in parts} == {12 * step}
        assert sum((b.keys for b, _ in parts), ()) == whole.keys
        for name in ("mask_BN", "text_BT", "box_BR4", "region_valid_BR", "region_name_BR", "depth_valid_B"):
            assert torch.equal(torch.cat([getattr(b, name) for b, _ in parts]), getattr(whole, name)), name
        for name in ("global_BCHW", "local_BMCHW", "depth_BHW"):
            apart = torch.cat([getattr(b, name) for b, _ in parts]) - getattr(whole, name)
            assert apart.abs().max() < 1e-5, name


def test_only_what_is_needed_is_made_and_it_is_the_same(data_corpus: ShardDataset) -> None:
    full = take(loader(data_corpus), steps=1)[0][0]
    for needs in (Needs(), Needs(locals=True), Needs(mask=True) | Needs(depth=True), Needs(regions=True)):
        part = take(loader(data_corpus, needs=needs), steps=1)[0][0]
        present = {name for name, value in vars(part).items() if value is not None}
        wanted = {"keys", "global_BCHW", "text_BT"}
        wanted |= {"local_BMCHW"} if needs.locals else set()
        wanted |= {"mask_BN"} if needs.mask else set()
        wanted |= {"depth_BHW", "depth_valid_B"} if needs.depth else set()
        regions = {"box_BR4", "region_text_BRT", "region_valid_BR", "region_name_BR"}
        assert present == wanted | (regions if needs.regions else set())
        for name in present - {"keys"}:
            assert torch.equal(getattr(part, name), getattr(full, name)), name


def edges(profile: np.ndarray) -> tuple[float, float]:
    """Where a bright stretch begins and ends, in pixels, by the share of light in it."""
    lit = np.flatnonzero(profile > 0.5)
    first, last = lit[0], lit[-1]
    before = profile[first - 1] if first else 0.0
    after = profile[last + 1] if last + 1 < len(profile) else 0.0
    return first + 1 - profile[first] - before, last + profile[last] + after


def test_pixels_boxes_and_disparity_tell_the_same_crop(data_corpus: ShardDataset) -> None:
    """Red and green are the position in the image, blue the first box, disparity is 2 x + y + 5."""
    views = ViewOptions(global_scale=(0.6, 1.0), global_flip=0.5, regions=6, min_side_px=1)
    needs = Needs(regions=True, depth=True)
    mugs = 0
    for batch, _ in take(loader(data_corpus, views=views, needs=needs, canvas=128, depth_canvas=96), steps=5):
        rgb_BCHW = (batch.global_BCHW / 2 + 0.5).numpy()
        assert batch.depth_BHW is not None
        depth = batch.depth_BHW.numpy()
        inner = np.s_[4:-4, 4:-4]
        for b in range(len(batch)):
            expected = 2 * rgb_BCHW[b, 0] + rgb_BCHW[b, 1] + 5
            assert np.abs(depth[b] - expected)[inner].max() < 0.05
            assert batch.region_valid_BR is not None
            assert batch.region_name_BR is not None
            assert batch.box_BR4 is not None
            mug = name_id(ByteTokenizer().encode(["mug"])[0])
            for slot in torch.nonzero(batch.region_name_BR[b] == mug)[:, 0]:
                x0, y0, x1, y1 = (batch.box_BR4[b, slot] * 32).tolist()
                blue = rgb_BCHW[b, 2]
                found_x = edges(blue[int((y0 + y1) / 2)])
                found_y = edges(blue[:, int((x0 + x1) / 2)])
                assert np.abs(np.array([*found_x, *found_y]) - [x0, x1, y0, y1]).max() < 1.0
                mugs += 1
    assert mugs > 30


def test_views_show_the_parts_of_the_image_that_were_drawn(data_corpus: ShardDataset) -> None:
    """Red falls to the right exactly in mirrored views, and a local view shows 5 to 32 % of the image."""
    views = ViewOptions(
        local_crops=4, local_size=16, global_flip=0.5, local_color_p=0.0, local_grey=0.0, local_blur=0.0
    )
    mirrored = []
    for batch, _ in take(loader(data_corpus, views=views, canvas=128), steps=4):
        assert batch.local_BMCHW is not None
        red_BW = (batch.global_BCHW / 2 + 0.5)[:, 0].mean(dim=1)
        mirrored += (red_BW[:, 0] > red_BW[:, -1]).tolist()
        red, green = (batch.local_BMCHW / 2 + 0.5)[:, :, :2].unbind(2)
        width = (red[..., -2] - red[..., 1]).mean(dim=2).abs() * 16 / 13
        height = (green[..., -2, :] - green[..., 1, :]).mean(dim=2).abs() * 16 / 13
        assert ((width * height > 0.04) & (width * height < 0.36)).all()
    assert 0.2 < np.mean(mirrored) < 0.8


def test_labels_of_a_batch(data_corpus: ShardDataset) -> None:
    made = loader(data_corpus)
    tokenizer = made._assemble._captions.tokenizer
    assert isinstance(tokenizer, ByteTokenizer)
    batches = [b for b, _ in take(made, steps=16)]
    texts = tokenizer.asked
    assert len([t for t in texts if t.startswith("caption")]) == len({t for t in texts if t.startswith("caption")})
    assert texts.count("mug") == 1
    for batch in batches:
        assert batch.region_valid_BR is not None
        assert batch.region_name_BR is not None
        assert batch.region_text_BRT is not None
        assert batch.mask_BN is not None
        assert (batch.mask_BN.sum(dim=1) == 8).all()
        assert ((batch.region_name_BR != 0) == batch.region_valid_BR).all()
        empty = batch.region_text_BRT[~batch.region_valid_BR]
        assert (empty == torch.from_numpy(ByteTokenizer().encode([""])[0])).all()
        for key, row in zip(batch.keys, batch.text_BT, strict=True):
            text = bytes(row[row != 1].tolist()).decode()
            assert text in [f"caption {k} of {int(key[1:])}" for k in range(1 + int(key[1:]) % 3)]
    drawn = {(k, tuple(r.tolist())) for b in batches for k, r in zip(b.keys, b.text_BT, strict=True)}
    assert len(drawn) > 32  # another caption in another epoch


def test_names_with_equal_tokens_are_one_name_and_others_are_not() -> None:
    rows = ByteTokenizer().encode(["Mug", "mug", "cup", ""])
    ids = [name_id(row) for row in rows]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert 0 not in ids
    assert all(-(2**63) <= i < 2**63 for i in ids)


def test_the_first_caption_on_request_and_templates(data_corpus: ShardDataset) -> None:
    made = loader(data_corpus, caption="first", views=ViewOptions(local_crops=1, local_size=16, region_template="a {}"))
    tokenizer = made._assemble._captions.tokenizer
    assert isinstance(tokenizer, ByteTokenizer)
    take(made, steps=6)
    assert all(t.startswith(("caption 0 ", "a ")) or t == "" for t in tokenizer.asked)
    assert "a mug" in tokenizer.asked


def test_a_subset_trains_on_its_samples_only(data_corpus: ShardDataset) -> None:
    made = loader(data_corpus, limit=10, cache=1 << 24)
    keys = [k for b, _ in take(made, steps=5) for k in b.keys]
    assert len(made.subset) == 10
    assert len(set(keys)) == 10
    assert all(sorted(keys[i : i + 10]) == sorted(set(keys)) for i in range(0, 60, 10))


def test_the_random_state_of_the_run_is_left_alone(data_corpus: ShardDataset) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(5)
    np.random.seed(5)
    take(loader(data_corpus, workers=1), steps=1)
    take(loader(data_corpus), steps=1)
    assert torch.equal(torch.rand(3), expected[0])
    assert (np.random.rand(3) == expected[1]).all()


def test_waits_name_the_stage(data_corpus: ShardDataset) -> None:
    made = loader(data_corpus)
    stream = made.batches()
    start = time.perf_counter()
    next(stream)
    waits = made.take_waits()
    assert 0 < waits.transfer < waits.seconds < time.perf_counter() - start
    assert waits.read > 0
    assert waits.decode > 0
    assert waits.stage in ("read", "decode", "transfer")
    assert made.take_waits().seconds == 0
    stream.close()


def test_a_killed_worker_is_an_error_that_says_so(data_corpus: ShardDataset) -> None:
    stream = loader(data_corpus, workers=1, prefetch=1).batches()
    next(stream)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid or 0, signal.SIGKILL)
    worker.join()
    with pytest.raises(MtvError, match="a data worker died"):
        for _ in stream:
            pass
    assert not multiprocessing.active_children()


def test_workers_outlive_ctrl_c_and_sigterm_until_they_are_closed(data_corpus: ShardDataset) -> None:
    stream = loader(data_corpus, workers=2, prefetch=1).batches()
    first = next(stream)
    for worker in multiprocessing.active_children():
        os.kill(worker.pid or 0, signal.SIGINT)
        os.kill(worker.pid or 0, signal.SIGTERM)
    rest = [next(stream) for _ in range(5)]
    stream.close()
    assert not multiprocessing.active_children()
    same([first, *rest], take(loader(data_corpus), steps=6))


def test_a_crash_with_workers_at_work_ends_at_once(data_corpus: ShardDataset) -> None:
    """An exception keeps the loader alive; the workers, which ignore the first SIGTERM, must not delay the exit."""
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from data_world import DEPTH, REGIONS
from test_data_loader import ShardDataset, loader
stream = loader(ShardDataset.open({str(data_corpus.root)!r}, labels=(DEPTH, REGIONS)), workers=2).batches()
next(stream)
print(time.time(), flush=True)
raise RuntimeError("the training step failed")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert time.time() - float(done.stdout) < GRACE_SECONDS / 2
    assert done.returncode == 1
    assert "the training step failed" in done.stderr


def test_wrong_sizes_and_absent_labels_are_refused(data_corpus: ShardDataset) -> None:
    with pytest.raises(UsageError, match="image size 30 is no multiple of the patch size 8"):
        loader(data_corpus, image_size=30)
    with pytest.raises(UsageError, match=r"views.local_size is 20"):
        loader(data_corpus, views=ViewOptions(local_size=20))
    with pytest.raises(UsageError, match="13 does not divide into 2 processes"):
        loader(data_corpus, global_batch=13, world=2)
    for labels, kind in (((DEPTH,), "regions"), ((REGIONS,), "depth")):
        with pytest.raises(UsageError, match=f"opened without a {kind} label set"):
            loader(ShardDataset.open(data_corpus.root, labels=labels))
    loader(ShardDataset.open(data_corpus.root), needs=Needs(locals=True, mask=True))


def test_the_miniature_world_loads(mini_world: Any) -> None:
    dataset = ShardDataset.open(mini_world / "pretrain", labels=("depth-mini-v1", "regions-mini-v1"))
    made = loader(dataset, global_batch=8)
    for batch, _ in take(made, steps=3):
        assert batch.depth_valid_B is not None
        assert batch.region_valid_BR is not None
        assert batch.depth_valid_B.all()
        assert batch.region_valid_BR.any(dim=1).all()
    assert not made.bad


def test_a_tiny_corpus_repeats_within_a_batch(tmp_path: Any) -> None:
    made = loader(write_corpus(tmp_path, shards=(3,)), global_batch=8)
    keys = [k for b, _ in take(made, steps=3) for k in b.keys]
    assert all(len(set(keys[i : i + 3])) == 3 for i in range(0, 24, 3))
