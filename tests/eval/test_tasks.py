"""Classification, kNN and retrieval end to end through the runner, against naive fp64 loops on the same features."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_helpers import make_job, measure
from run_oracles import GAP, agree, embed, naive_ranks, pooled, unit, values
from run_world import COCO_CAPTIONS, SPAIR_SIZES

from mtv.encoders.base import Encoder
from mtv.eval.tasks.common import n_truncated


def test_imagenet_is_the_naive_zero_shot_classifier(two_tower: Encoder, world: Path, tmp_path: Path) -> None:
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES, SIMPLE_IMAGENET_TEMPLATES

    record, table = measure(two_tower, make_job("imagenet", templates="openai7"), world, tmp_path)
    classifier = []
    for name in IMAGENET_CLASSNAMES[:5]:
        prompts = [embed(two_tower, template(name), "prompt") for template in SIMPLE_IMAGENET_TEMPLATES]
        classifier.append(unit(np.mean(prompts, axis=0)))
    expected: dict[str, tuple[int, int, int]] = {}
    for label, folder in enumerate(sorted((world / "imagenet" / "val").iterdir())):
        for path in folder.iterdir():
            vector = pooled(two_tower, path)
            scores = [float(np.dot(vector, c)) for c in classifier]
            assert min(abs(a - b) for i, a in enumerate(scores) for b in scores[:i]) > GAP
            rank = 1 + sum(s > scores[label] for s in scores)
            expected[path.stem] = label, int(np.argmax(scores)), rank
    rows = zip(table["label"], table["predicted"], table["rank"], strict=True)
    assert dict(zip(table["sample_id"], [tuple(map(int, r)) for r in rows], strict=True)) == expected
    hits = {label: [r == 1 for own, _, r in expected.values() if own == label] for label in range(5)}
    agree(
        record,
        {
            "top1": 100 * np.mean([r == 1 for _, _, r in expected.values()]),
            "top5": 100.0,
            "mean_class_acc": 100 * np.mean([np.mean(h) for h in hits.values()]),
        },
    )
    assert record.metrics["imagenet/top1"].chance == pytest.approx(20)
    assert record.details["n_candidates"] == 5
    assert record.data["label"] == "subset (16 of 50000)"


def test_imagenet_with_all_thousand_candidates_and_with_own_names(
    two_tower: Encoder, world: Path, tmp_path: Path
) -> None:
    record, table = measure(two_tower, make_job("imagenet", templates="one", classes="all"), world, tmp_path)
    assert record.details["n_candidates"] == 1000
    assert set(table["label"]) == {0, 1, 2, 3, 4}
    names = tmp_path / "names.txt"
    names.write_text("\n".join(["fish", "gold", "white", "tiger", "hammer"]) + "\n")
    named, _ = measure(two_tower, make_job("imagenet", templates="one", classnames=str(names)), world, tmp_path)
    assert named.details["n_candidates"] == 5
    assert named.protocol["params"]["classnames"] == "names.txt"


@pytest.mark.parametrize(("data", "k"), [("imagenet", 3), ("spair", 20)])
def test_knn_is_the_naive_vote(vit_tiny: Encoder, world: Path, tmp_path: Path, data: str, k: int) -> None:
    record, table = measure(vit_tiny, make_job("knn", data=data, k=k), world, tmp_path)
    root = world / "imagenet" / "val" if data == "imagenet" else world / "SPair-71k" / "JPEGImages"
    found = [(label, p) for label, d in enumerate(sorted(root.iterdir())) for p in sorted(d.iterdir())]
    counts = [sum(other == label for other, _ in found) for label, _ in found]
    kept = [(label, p, pooled(vit_tiny, p)) for (label, p), n in zip(found, counts, strict=True) if n > 1]
    outcome = {}
    for i, (label, path, vector) in enumerate(kept):
        others = sorted(((-float(vector @ v), o) for j, (o, _, v) in enumerate(kept) if j != i), key=lambda s: s[0])
        votes: dict[int, float] = {}
        for score, other in others[: min(k, len(others))]:
            votes[other] = votes.get(other, 0.0) + math.exp(-score / 0.07)
        name = path.stem if data == "imagenet" else f"{path.parent.name}/{path.stem}"
        outcome[name] = label, max(sorted(votes), key=lambda c: votes[c])
    columns = zip(table["label"].tolist(), table["predicted"].tolist(), strict=True)
    assert dict(zip(table["sample_id"].tolist(), columns, strict=True)) == outcome
    right = {label: [p == own for own, p in outcome.values() if own == label] for label, _ in outcome.values()}
    agree(
        record,
        {
            "top1": 100 * np.mean([p == own for own, p in outcome.values()]),
            "mean_class_acc": 100 * np.mean([np.mean(r) for r in right.values()]),
        },
    )
    assert record.details["n_left_out"] == len(found) - len(kept)
    most = max(len(r) for r in right.values())
    assert record.metrics["knn/top1"].chance == pytest.approx(100 * most / len(outcome))


def caption_sets(world: Path, task: str) -> list[tuple[Path, list[str]]]:
    """Pictures with their captions in the order of the task."""
    captions = list(COCO_CAPTIONS.items())
    if task == "coco":
        folder = world / "coco" / "val2014"
        return [(folder / f"COCO_val2014_{i:012d}.jpg", texts) for i, texts in captions]
    folder, first = ("flickr30k/flickr30k-images", 4) if task == "flickr30k" else ("flickr8k/Images", 5)
    paths = sorted((world / folder).iterdir())
    return [(p, texts[:5]) for p, (_, texts) in zip(paths, captions[:first], strict=True)]


@pytest.mark.parametrize("task", ["coco", "flickr30k", "flickr8k"])
def test_retrieval_is_the_naive_ranking(two_tower: Encoder, world: Path, tmp_path: Path, task: str) -> None:
    record, table = measure(two_tower, make_job(task), world, tmp_path)
    sets = caption_sets(world, task)
    images = [pooled(two_tower, path) for path, _ in sets]
    texts = [embed(two_tower, c, "caption") for _, captions in sets for c in captions]
    owner = [i for i, (_, captions) in enumerate(sets) for _ in captions]
    ranks = dict(zip(("t2i", "i2t"), naive_ranks(images, texts, owner), strict=True))
    expected: dict[str, float | None] = {}
    for part, found in ranks.items():
        assert table["rank"][table["part"] == part].tolist() == found
        expected |= {f"{part}_r{k}": 100 * float(np.mean([r <= k for r in found])) for k in (1, 5, 10)}
        expected[f"{part}_medr"] = float(np.median(found))
    expected["rsum"] = sum(v for k, v in expected.items() if "_r" in k and v is not None)
    agree(record, expected)
    # Captions of one picture share its cluster, whatever the direction.
    assert len(set(table["cluster_id"])) == len(sets) == record.metrics[f"{task}/t2i_r1"].n_clusters
    assert record.metrics[f"{task}/t2i_r1"].n == len(texts)


def test_repeated_captions_are_embedded_once_and_tie(two_tower: Encoder, world: Path, tmp_path: Path) -> None:
    """R3, R7: `a dog  on a beach.` and `A dog on a beach.\\n` are one string for CLIP; `A dog.` is on two pictures."""
    record, table = measure(two_tower, make_job("coco"), world, tmp_path)
    cleaned = {" ".join(c.lower().split()) for captions in COCO_CAPTIONS.values() for c in captions}
    assert record.details["unique_captions"] == len(cleaned) < sum(map(len, COCO_CAPTIONS.values()))
    score = dict(zip(table["sample_id"].tolist(), table["score"].tolist(), strict=True))
    rows = [i for i, p in zip(table["sample_id"].tolist(), table["part"], strict=True) if p == "t2i"]
    assert score[rows[0]] == score[rows[1]]
    same = make_job("coco", positives="same_text")
    assert same.protocol.hash != record.protocol["hash"]
    accepted, _ = measure(two_tower, same, world, tmp_path)
    assert (values(accepted)["t2i_r1"] or 0) >= (values(record)["t2i_r1"] or 0)


def test_limits_are_spread_and_do_not_depend_on_order(tiny_encoder: Encoder, world: Path, tmp_path: Path) -> None:
    """Five of sixteen pictures are one of each class; a limited caption set keeps all captions of its pictures."""
    record, table = measure(tiny_encoder, make_job("imagenet", templates="one", limit=5), world, tmp_path)
    assert sorted(table["label"].tolist()) == [0, 1, 2, 3, 4]
    assert record.status == "partial"
    assert record.details["n_candidates"] == 5
    record, table = measure(tiny_encoder, make_job("coco", limit=2), world, tmp_path)
    images = set(table["cluster_id"].tolist())
    assert len(images) == 2
    for image in images:
        own = (table["cluster_id"] == image) & (table["part"] == "t2i")
        assert own.sum() == len(COCO_CAPTIONS[int(image)])
    record, table = measure(tiny_encoder, make_job("spair", size=64, limit=3), world, tmp_path)
    assert sorted({c.partition(":")[2] for c in table["cluster_id"].tolist()}) == ["bus", "cat", "dog"]
    assert record.data["counts"]["pairs"] == 3
    record, table = measure(tiny_encoder, make_job("sevenscenes", matches=20, limit=2), world, tmp_path)
    assert len(table["sample_id"]) == 2


def test_sizes_of_the_world_are_what_the_oracles_assume(world: Path) -> None:
    sizes = {Image.open(p).size for p in (world / "SPair-71k" / "JPEGImages").rglob("*.jpg")}
    assert sizes == set(SPAIR_SIZES)


def test_cut_texts_are_counted_for_the_diagnosis(two_tower: Encoder) -> None:
    long = "a very long caption about a dog " * 30
    assert n_truncated(two_tower, ["a dog", long, "a cat"], "caption") == 1
    assert n_truncated(two_tower, ["a dog"], "prompt") == 0
