"""The interface between the generator and a benchmark's files: scenes wanted, pictures written, annotations at the end.

A layout is stateless. `requests` lists every scene of the set in order; `write_chunk` turns some of them into files and
rows; `finish` writes what needs all rows (annotation files, lists). Rows are JSON values, because they rest on disk
between the two: a killed process goes on with the rows of the chunks that are whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mtv.draws import Draws
from mtv.miniworld.folder import SetFolder
from mtv.miniworld.frame import Frame, Seen
from mtv.miniworld.layouts.scales import Scale
from mtv.miniworld.scene import Instance
from mtv.miniworld.spec import SceneRequest, WorldSpec

CHUNK = 64
"""Scenes per chunk of most sets."""

Row = dict[str, Any]
"""What `finish` needs of one scene; a JSON object."""


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One scene with its picture, on its way into the files of a set."""

    spec: WorldSpec
    """The world."""
    scale: Scale
    """How many scenes it has."""
    request: SceneRequest
    """What was asked for."""
    frame: Frame
    """Picture and truth."""

    def draws(self, *key: int | str) -> Draws:
        """A random stream of this scene, apart from those that made it."""
        return Draws(self.spec.seed, self.request.split, self.request.index, "layout", *key)

    def main(self) -> tuple[Instance, Seen, np.ndarray]:
        """The object that a `single` or `model` picture is about: itself, what is seen of it, its mask (bool [H,W])."""
        return self.frame.scene.instances[0], self.frame.seen[0], self.frame.instance_HW == 1


class Layout(ABC):
    """One set of the miniature world in the on-disk layout of a benchmark."""

    name: ClassVar[str]
    """Folder below the world's root, and what `--sets` takes."""
    title: ClassVar[str]
    """One line for README and help."""

    def chunk_length(self, scale: Scale) -> int:
        """Scenes that are written, recorded and, when damaged, made again together; fewer where pictures are large."""
        return CHUNK

    @abstractmethod
    def requests(self, spec: WorldSpec, scale: Scale) -> list[SceneRequest]:
        """All scenes in order."""

    @abstractmethod
    def write_chunk(self, number: int, shots: Iterable[Shot], folder: SetFolder) -> list[Row]:
        """Write the files of one chunk of scenes; equal bytes for equal shots.

        Args:
            number: which chunk, from 0.
            shots: its scenes in order; consumed one by one, so that only a few pictures are in memory.
            folder: where to write.
        """

    @abstractmethod
    def finish(self, rows: Sequence[Row], folder: SetFolder, *, spec: WorldSpec, scale: Scale) -> dict[str, int]:
        """Write the files that need all rows, and return counts for manifest and README."""

    @abstractmethod
    def readme(self) -> tuple[str, ...]:
        """What the files hold and by which rules: items of a Markdown list."""


class PictureLayout(Layout):
    """A layout whose files belong to one picture each."""

    def write_chunk(self, number: int, shots: Iterable[Shot], folder: SetFolder) -> list[Row]:
        """Every picture for itself."""
        return [self.write(shot, folder) for shot in shots]

    @abstractmethod
    def write(self, shot: Shot, folder: SetFolder) -> Row:
        """Write the files of one picture."""
