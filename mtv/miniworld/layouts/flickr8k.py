"""Flickr8k layout: `Images/*.jpg`, `captions.txt` (CSV) and the lists of test and dev pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from mtv.miniworld.folder import SetFolder
from mtv.miniworld.language.captions import captions
from mtv.miniworld.layouts.base import PictureLayout, Row, Shot
from mtv.miniworld.layouts.encode import jpeg, mixed_size, text_bytes
from mtv.miniworld.layouts.scales import Scale
from mtv.miniworld.spec import SceneRequest, WorldSpec

TEST, DEV = "flickr8k/test", "flickr8k/dev"
_LISTS = {TEST: "Flickr_8k.testImages.txt", DEV: "Flickr_8k.devImages.txt"}


class Flickr8k(PictureLayout):
    """Pictures of several objects with five captions each."""

    name = "flickr8k"
    title = "Flickr8k layout: image-text retrieval"

    def requests(self, spec: WorldSpec, scale: Scale) -> list[SceneRequest]:
        """The test split, then the dev split."""
        found = []
        for split, count in ((TEST, scale.flickr8k), (DEV, max(1, scale.flickr8k // 5))):
            for index in range(count):
                width, height = mixed_size(spec, split, index, shorter=spec.size)
                found.append(
                    SceneRequest(split=split, index=index, purpose="several", width=width, height=height, test=True)
                )
        return found

    def write(self, shot: Shot, folder: SetFolder) -> Row:
        """The picture; its captions go into the row."""
        number = 9_000_000_000 + 100_000 * list(_LISTS).index(shot.request.split) + shot.request.index
        name = f"{number}_mini.jpg"
        folder.write(f"Images/{name}", jpeg(shot.frame.rgb_HW3))
        return {
            "split": shot.request.split,
            "file": name,
            "captions": list(captions(shot.frame, shot.draws("captions"))),
        }

    def finish(self, rows: Sequence[Row], folder: SetFolder, *, spec: WorldSpec, scale: Scale) -> dict[str, int]:
        """`captions.txt` and the two lists."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["image", "caption"])
        for row in rows:
            table.writerows([row["file"], caption] for caption in row["captions"])
        folder.write("captions.txt", text.getvalue().encode("utf-8"))
        for split, name in _LISTS.items():
            folder.write(name, text_bytes([row["file"] for row in rows if row["split"] == split]))
        return {
            "images": len(rows),
            "test images": sum(row["split"] == TEST for row in rows),
            "captions": sum(len(row["captions"]) for row in rows),
        }

    def readme(self) -> tuple[str, ...]:
        """Files and rules."""
        return (
            "`Images/*.jpg`: two to six objects each.",
            "`captions.txt`: CSV `image,caption`, five captions per picture, all true for it.",
            "`Flickr_8k.testImages.txt`, `Flickr_8k.devImages.txt`: file names of the splits.",
        )
