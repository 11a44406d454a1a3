"""The named recipes: the paper's, one for a GPU and an hour, one for two CPU cores and minutes.

Each is a function that returns a frozen `Recipe`; `mtv-train recipes` prints the first line of its docstring.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from mtv.errors import unknown
from mtv.model.config import SIZES, PrompterConfig, SslConfig
from mtv.model.mini_bpe import NAME as MINI_BPE
from mtv.train.data.options import DataOptions, ViewOptions
from mtv.train.options import DepthOptions, LogOptions, OptimOptions, PerfOptions, SaveOptions, SslOptions, VlOptions
from mtv.train.recipe import Recipe

SIGLIP_TOKENIZER = "google/siglip-base-patch16-224"
_PAPER_RUNS = {"10m": (10, 20, 4096), "50m": (50, 10, 4096), "100m": (100, 32, 8192)}
"""Millions of samples, epochs, global batch."""


def paper(size: str, subset: str) -> Recipe:
    """A run of the paper: `b16` or `l16` on `10m`, `50m` or `100m` samples."""
    millions, epochs, batch = _PAPER_RUNS[subset]
    return Recipe(
        name=f"mtv_{size}_{subset}",
        model=SIZES[size],
        tokenizer=SIGLIP_TOKENIZER,
        samples=millions * 1_000_000 * epochs,
        ssl=SslOptions(koleo_group=256 if size == "b16" else 128),
        data=DataOptions(limit=millions * 1_000_000),
        optim=OptimOptions(global_batch=batch),
        perf=PerfOptions(precision="bf16", compile=True),
        log=LogOptions(gradients_every=1000),
    )


def mtv_b16_10m() -> Recipe:
    """ViT-B/16 at 224 px, 10M samples x 20 epochs, batch 4,096 (Table 3)."""
    return paper("b16", "10m")


def mtv_b16_50m() -> Recipe:
    """ViT-B/16 at 224 px, 50M samples x 10 epochs, batch 4,096 (Table 3)."""
    return paper("b16", "50m")


def mtv_b16_100m() -> Recipe:
    """ViT-B/16 at 224 px, 100M samples x 32 epochs, batch 8,192 (Table 5)."""
    return paper("b16", "100m")


def mtv_l16_10m() -> Recipe:
    """ViT-L/16 at 256 px, 10M samples x 20 epochs, batch 4,096 (Table 3)."""
    return paper("l16", "10m")


def mtv_l16_50m() -> Recipe:
    """ViT-L/16 at 256 px, 50M samples x 10 epochs, batch 4,096 (Table 3)."""
    return paper("l16", "50m")


def mtv_l16_100m() -> Recipe:
    """ViT-L/16 at 256 px, 100M samples x 32 epochs, batch 8,192 (Table 5)."""
    return paper("l16", "100m")


def small() -> Recipe:
    """A ViT-S/8 at 96 px for one GPU and about an hour, on the large miniature world or a set like CC3M."""
    tower = {"width": 384, "layers": 12, "heads": 6, "mlp_width": 1536}
    size = SIZES["tiny"].with_(
        name="small",
        vision={"image_size": 96, **tower},
        text={"positions": 48, **tower, "layers": 6},
        dpt={"taps": (3, 6, 9, 12), "tap_widths": (48, 96, 192, 384), "features": 64, "out_hidden": 32},
    )
    return Recipe(
        name="small",
        model=size,
        tokenizer=MINI_BPE,
        samples=4_000_000,
        heads=SslConfig(prototypes=8192, hidden=1024, bottleneck=256),
        ssl=SslOptions(koleo_group=128),
        views=ViewOptions(local_size=48),
        data=DataOptions(canvas=128, depth_canvas=128, cache=32 << 30),
        optim=OptimOptions(global_batch=1024, warmup=300, lr=1e-3),
        perf=PerfOptions(precision="bf16", compile=True),
        log=LogOptions(gradients_every=200),
        save=SaveOptions(every=500),
    )


def mini() -> Recipe:
    """A tiny ViT at 48 px for two CPU cores and ten minutes, on the miniature world.

    One block: image-text alone learns as well with one as with four in that time, sees several times the samples, and
    its patch features mix less of the whole picture (`leaderboards/miniature/trainer.md`). The depth head reads that
    block four times.

    The paper weighs its objectives equally. Here the self-supervised losses have three tenths of their weight: in so
    few steps their targets are mostly noise, and at full weight their gradient on the trunk was three to ten times that
    of any other objective. Depth has three times its weight, or it was hardly learnt. Both were tuned with four blocks.

    AdamW's weight decay of 0.5, where the paper has none, takes a third off all weights over the run. Without it patch
    features of image-text alone match pictures little better than those of random weights do. Most of that gain is
    the shrinkage itself: random weights gain from it, too (same page).
    """
    size = SIZES["tiny"].with_(
        name="mini",
        vision={"image_size": 48, "width": 96, "layers": 1, "heads": 3, "mlp_width": 384},
        text={"positions": 24, "width": 96, "layers": 1, "heads": 3, "mlp_width": 384},
        dpt={"taps": (1, 1, 1, 1), "tap_widths": (8, 16, 32, 64), "features": 8, "out_hidden": 8},
    )
    return Recipe(
        name="mini",
        model=size,
        tokenizer=MINI_BPE,
        samples=96_000,
        heads=SslConfig(prototypes=1024, hidden=256, bottleneck=64),
        prompter=PrompterConfig(pe_high=8.0),
        vl=VlOptions(init_bias=-5.0),
        ssl=SslOptions(
            dino_weight=0.3, ibot_weight=0.6, koleo_weight=0.03, koleo_group=32, teacher_momentum=0.98, chunk_rows=256
        ),
        depth=DepthOptions(weight=3.0),
        views=ViewOptions(local_size=24, local_crops=2, min_side_px=3.0),
        data=DataOptions(canvas=64, depth_canvas=64, cache=1 << 30, workers=0),
        optim=OptimOptions(global_batch=64, warmup=60, lr=1e-3, weight_decay=0.5),
        log=LogOptions(gradients_every=250),
        save=SaveOptions(every=250, keep=2),
    )


def nano() -> Recipe:
    """The smallest model, for seconds: to try the commands out; it learns nothing to speak of."""
    return Recipe(
        name="nano",
        model=SIZES["nano"],
        tokenizer=MINI_BPE,
        samples=320,
        heads=SslConfig(prototypes=64, hidden=32, bottleneck=16),
        prompter=PrompterConfig(pe_high=4.0),
        ssl=SslOptions(koleo_group=4, teacher_momentum=0.9),
        views=ViewOptions(local_size=16, local_crops=2, min_side_px=2.0),
        data=DataOptions(canvas=48, depth_canvas=48, cache=64 << 20, workers=0),
        optim=OptimOptions(global_batch=16, warmup=4, lr=1e-3),
        log=LogOptions(every=5),
        save=SaveOptions(every=10),
    )


RECIPES: Mapping[str, Callable[[], Recipe]] = MappingProxyType(
    {
        f.__name__: f
        for f in (mtv_b16_10m, mtv_b16_50m, mtv_b16_100m, mtv_l16_10m, mtv_l16_50m, mtv_l16_100m, small, mini, nano)
    }
)


def get_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UsageError: unknown name; lists them.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]()
