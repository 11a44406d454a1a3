"""README files of a world and its sets."""

from __future__ import annotations

from collections.abc import Mapping

from mtv.miniworld.layouts.base import Layout
from mtv.miniworld.manifest import World


def command(world: World) -> str:
    """The command that makes this world again."""
    spec = world.spec
    options = f"--size {spec.size} --scale {world.scale_name} --seed {spec.seed}"
    return f"mtv-eval data make-mini --out DIR {options}" + (" --shift" if spec.shift else "")


def set_readme(layout: Layout, world: World, counts: Mapping[str, int]) -> bytes:
    """`<set>/README.md`."""
    items = "".join(f"* {item}\n" for item in layout.readme())
    listed = ", ".join(f"{number} {what}" for what, number in counts.items())
    text = (
        f"# {layout.title}\n\n"
        "Part of a miniature world: generated pictures of small 3-D scenes with exact truth, in the files of a known\n"
        "benchmark. It is not that benchmark, and numbers from it compare only with numbers from the same world.\n\n"
        f"{items}\n"
        f"Counts: {listed}.\n\n"
        f"Made with `{command(world)}`, generator version {world.version}. `manifest.json` has size and SHA-256 of\n"
        "every file; the same command finds missing or damaged files and makes them again.\n"
    )
    return text.encode("utf-8")


def world_readme(world: World, sets: Mapping[Layout, Mapping[str, int]]) -> bytes:
    """`<out>/README.md`."""
    rows = [
        f"| `{layout.name}/` | {layout.title} | {', '.join(f'{number} {what}' for what, number in counts.items())} |"
        for layout, counts in sets.items()
    ]
    text = (
        "# A miniature world\n\n"
        "Generated pictures of small 3-D scenes with exact truth, in the on-disk layouts of known benchmarks.\n\n"
        f"Made with `{command(world)}`, generator version {world.version}.\n\n"
        "| folder | what | counts |\n|---|---|---|\n" + "\n".join(rows) + "\n\n"
        "`mtv-eval data check --data DIR` verifies it, the command above repairs it, `mtv-eval data show DIR` draws\n"
        "it. `.make/` holds what a later call needs to go on.\n"
    )
    return text.encode("utf-8")
