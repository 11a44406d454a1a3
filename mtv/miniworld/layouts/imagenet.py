"""ImageNet-1k validation layout: `val/<wnid>/<name>.JPEG` and `classnames.txt` with the set's own classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mtv.miniworld.folder import SetFolder
from mtv.miniworld.layouts.base import PictureLayout, Row, Shot
from mtv.miniworld.layouts.encode import jpeg, mixed_size, text_bytes
from mtv.miniworld.layouts.scales import Scale
from mtv.miniworld.spec import SceneRequest, WorldSpec
from mtv.miniworld.vocabulary import CATEGORIES

SPLIT = "imagenet/val"


def wnid(category: str) -> str:
    """An id in WordNet's form that no synset bears; ASCII order is the order of `CATEGORIES`."""
    return f"n{90_000_001 + CATEGORIES.index(category)}"


class ImageNet(PictureLayout):
    """One main object per picture, equally many of each category."""

    name = "imagenet"
    title = "ImageNet-1k validation layout: classification, nearest neighbours"

    def requests(self, spec: WorldSpec, scale: Scale) -> list[SceneRequest]:
        """Category by category in turn, so that any prefix is nearly balanced."""
        found = []
        for index in range(scale.imagenet * len(CATEGORIES)):
            width, height = mixed_size(spec, SPLIT, index, shorter=spec.size)
            found.append(
                SceneRequest(
                    split=SPLIT,
                    index=index,
                    purpose="single",
                    width=width,
                    height=height,
                    test=True,
                    category=CATEGORIES[index % len(CATEGORIES)],
                )
            )
        return found

    def write(self, shot: Shot, folder: SetFolder) -> Row:
        """The picture in the folder of its class."""
        category = shot.request.category
        assert category is not None
        folder.write(f"val/{wnid(category)}/mini_{shot.request.index:08d}.JPEG", jpeg(shot.frame.rgb_HW3))
        return {"category": category}

    def finish(self, rows: Sequence[Row], folder: SetFolder, *, spec: WorldSpec, scale: Scale) -> dict[str, int]:
        """`classnames.txt`."""
        folder.write("classnames.txt", text_bytes([f"{wnid(c)} {c}" for c in CATEGORIES]))
        return {"images": len(rows), "classes": len(Counter(row["category"] for row in rows))}

    def readme(self) -> tuple[str, ...]:
        """Files and rules."""
        return (
            "`val/<wnid>/*.JPEG`: one main object per picture, the same number for every class.",
            "`classnames.txt`: `<wnid> <name>` per line. The ids have WordNet's form but belong to no synset; "
            "class index = rank of the id in ASCII order.",
        )
