"""Sample order: a permutation per epoch, pure, the same for any split over ranks and micro-batches; nested subsets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtv.errors import UsageError
from mtv.shards import ShardDataset
from mtv.shards.dataset import read_index
from mtv.shards.index_file import Keys
from mtv.train.data.order import SampleOrder, micro_batch
from mtv.train.data.streams import bits, permutation, stream, uniforms
from mtv.train.data.subset import Subset, key_hashes

sizes = st.lists(st.integers(1, 9), min_size=1, max_size=12)


def whole(counts: list[int]) -> Subset:
    return Subset(np.cumsum(counts), None)


@given(sizes, st.integers(0, 2**40), st.integers(1, 5), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_an_epoch_is_a_permutation_made_of_blocks_of_whole_shards(
    counts: list[int], seed: int, block: int, epoch: int
) -> None:
    order, n = SampleOrder(whole(counts), seed=seed, block_shards=block), sum(counts)
    places = [order.place(g) for g in range(epoch * n, (epoch + 1) * n)]
    assert sorted(p.index for p in places) == list(range(n))
    assert {p.epoch for p in places} == {epoch}
    shard_of = np.repeat(np.arange(len(counts)), counts)
    blocks: dict[int, list[int]] = {}
    for p in places:
        assert p.within == len(blocks.setdefault(p.block, []))
        blocks[p.block].append(int(shard_of[p.index]))
    assert list(blocks) == sorted(blocks)
    assert len(blocks) == -(-len(counts) // block)
    for members in blocks.values():
        assert len(set(members)) <= block
        for shard in set(members):
            assert members.count(shard) == counts[shard]


@given(sizes, st.integers(0, 99), st.lists(st.integers(0, 400), min_size=1, max_size=30))
@settings(max_examples=40, deadline=None)
def test_a_place_does_not_depend_on_what_was_asked_before(counts: list[int], seed: int, asked: list[int]) -> None:
    order = SampleOrder(whole(counts), seed=seed, block_shards=2)
    for g in asked:
        assert order.place(g) == SampleOrder(whole(counts), seed=seed, block_shards=2).place(g)


def test_seeds_and_epochs_give_different_orders() -> None:
    subset = whole([50] * 8)

    def indices(seed: int, epoch: int) -> tuple[int, ...]:
        order = SampleOrder(subset, seed=seed, block_shards=3)
        return tuple(order.place(g).index for g in range(400 * epoch, 400 * (epoch + 1)))

    assert len({indices(s, e) for s in (0, 1) for e in (0, 1)}) == 4


def test_first_places_are_uniform_over_the_corpus() -> None:
    subset = whole([5, 15, 30])
    first = [SampleOrder(subset, seed=s, block_shards=3).place(0).index for s in range(2000)]
    counts = np.bincount(first, minlength=50)
    assert ((counts - 40) ** 2 / 40).sum() < 90  # chi-squared with 49 degrees of freedom: 99.97 %


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 5), st.integers(0, 10**9))
@settings(max_examples=80, deadline=None)
def test_ranks_and_micro_batches_cut_the_step_into_equal_consecutive_parts(
    world: int, accumulate: int, size: int, start: int
) -> None:
    G = world * accumulate * size
    parts = [
        micro_batch(start, a, global_batch=G, accumulate=accumulate, rank=r, world=world)
        for a in range(accumulate)
        for r in range(world)
    ]
    assert [g for part in parts for g in part] == list(range(start, start + G))
    assert {len(part) for part in parts} == {size}
    # What the ranks see together in one micro-batch is what one process sees in it.
    for a in range(accumulate):
        together = [g for part in parts[a * world : (a + 1) * world] for g in part]
        assert together == list(micro_batch(start, a, global_batch=G, accumulate=accumulate))


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(UsageError, match="10 does not divide into 4 processes x 1"):
        micro_batch(0, 0, global_batch=10, world=4)


@given(sizes, st.integers(0, 99), st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_substitutes_are_all_others_of_the_block_once_and_the_first_is_far_away(
    counts: list[int], seed: int, counter: int
) -> None:
    order = SampleOrder(whole(counts), seed=seed, block_shards=3)
    place = order.place(counter)
    epoch = map(order.place, range(place.epoch * len(order), (place.epoch + 1) * len(order)))
    block = [p for p in epoch if p.block == place.block]
    found = []
    while (other := order.substitute(place, len(found))) is not None:
        found.append(other)
    assert sorted(p.within for p in [place, *found]) == list(range(len(block)))
    assert all(p == block[p.within] for p in found)
    if found:
        assert abs((found[0].within - place.within) % len(block) - len(block) / 2) <= 1


def naive_hash(text: str) -> int:
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = ((h ^ byte) * 0x100000001B3) % 2**64
    h = ((h ^ (h >> 33)) * 0xFF51AFD7ED558CCD) % 2**64
    h = ((h ^ (h >> 33)) * 0xC4CEB9FE1A85EC53) % 2**64
    return h ^ (h >> 33)


@given(st.lists(st.text(max_size=12), min_size=1, max_size=8), st.integers(0, 2**33))
@settings(max_examples=50, deadline=None)
def test_key_hashes_are_the_published_functions(keys: list[str], seed: int) -> None:
    assert key_hashes(Keys.of(keys), seed).tolist() == [naive_hash(f"{seed}:{k}") for k in keys]


def test_fnv1a_has_its_published_value() -> None:
    h = 0xCBF29CE484222325
    for byte in b"foobar":
        h = ((h ^ byte) * 0x100000001B3) % 2**64
    assert h == 0x85944171F73967E8


@pytest.mark.parametrize("limit", [1, 2, 13, 31])
def test_a_subset_is_the_lowest_hashes_whatever_the_shards(data_corpus: ShardDataset, limit: int) -> None:
    keys = [k for entry in data_corpus.info.shards for k in read_index(data_corpus.root, entry).keys]
    expected = sorted(range(len(keys)), key=lambda i: naive_hash(f"7:{keys[i]}"))[:limit]
    subset = Subset.of(data_corpus, limit=limit, seed=7)
    members = [int(i) for shard in range(4) for i in subset.members(shard)]
    assert members == sorted(expected)
    assert len(subset) == limit
    assert [subset.ordinal(i) for i in members] == list(range(limit))
    order = SampleOrder(subset, seed=0, block_shards=2)
    assert sorted(order.place(g).index for g in range(limit)) == members


def test_subsets_are_nested_and_seeds_differ(data_corpus: ShardDataset) -> None:
    def members(limit: int, seed: int) -> set[int]:
        subset = Subset.of(data_corpus, limit=limit, seed=seed)
        return {int(i) for shard in range(4) for i in subset.members(shard)}

    assert members(5, 0) < members(11, 0) < members(30, 0)
    assert members(11, 0) != members(11, 1)
    assert len(Subset.of(data_corpus, limit=32)) == len(Subset.of(data_corpus)) == 32
    with pytest.raises(UsageError, match=r"data.limit is 33, but .* has 32 samples"):
        Subset.of(data_corpus, limit=33)


def test_streams_are_splitmix64() -> None:
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert bits(np.array([1234567], np.uint64), 4)[0].tolist() == published


def test_streams_are_uniform_independent_and_do_not_depend_on_how_much_is_drawn() -> None:
    starts = np.array([stream(0, epoch, f"k{k}", "mask") for epoch in range(3) for k in range(300)], np.uint64)
    u = uniforms(starts, 64)
    assert (uniforms(starts, 3) == u[:, :3]).all()
    assert abs(u.mean() - 0.5) < 0.005
    assert abs(u.var() - 1 / 12) < 0.002
    assert abs(np.corrcoef(u.T) - np.eye(64)).max() < 0.16  # 5 sigma of 900 samples
    assert len({stream(0, 1, "a"), stream(0, "1", "a"), stream(1, 0, "a"), stream(0, 1, "a", "")}) == 4


def test_permutations_are_uniform() -> None:
    seen = [tuple(permutation(stream(s), 4)) for s in range(2400)]
    counts = np.unique(np.array(seen), axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert ((counts - 100) ** 2 / 100).sum() < 53  # chi-squared with 23 degrees of freedom: 99.97 %
