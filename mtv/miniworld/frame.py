"""A rendered scene with all truth, as numpy arrays on the host."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtv.miniworld.keypoints import SeenKeypoint, seen_keypoints
from mtv.miniworld.scene import Instance, Scene


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What of one instance is in the picture."""

    index: int
    """Position in `Scene.instances`."""
    pixels: int
    """Visible pixels."""
    whole: int
    """Pixels in the frame that it would cover with nothing in front."""
    box: tuple[int, int, int, int] | None
    """Left, top, right, bottom (exclusive) of the visible pixels; None if there are none."""
    depth: float
    """Median camera z of the visible pixels, metres; NaN if there are none."""
    nearest: float
    """Smallest camera z of the visible pixels, metres; NaN if there are none."""
    cut: bool
    """Whether the frame's border cuts it."""

    @property
    def visibility(self) -> float:
        """Visible share of what the frame holds of it, 0..1."""
        return self.pixels / self.whole if self.whole else 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One picture with its truth. Pixel centres at (column + 0.5, row + 0.5)."""

    scene: Scene
    """Where it comes from."""
    rgb_HW3: np.ndarray
    """uint8 picture."""
    depth_HW: np.ndarray
    """float32 camera z at pixel centres, metres; 0 where nothing is hit (sky)."""
    semantic_HW: np.ndarray
    """uint8 index into `SEMANTIC`."""
    instance_HW: np.ndarray
    """uint8: 0 surroundings, i + 1 for `scene.instances[i]`."""
    pigment_HW: np.ndarray
    """uint8: which pigment of an object shows at the pixel centre: 1 + 2 k for the main and 2 + 2 k for the second
    pigment of the material of slot k of `SLOTS`; 0 where no object is seen, or a blend of both that is neither."""
    seen: tuple[Seen, ...]
    """One per instance, in order."""

    @property
    def size(self) -> tuple[int, int]:
        """Width, height."""
        return self.scene.camera.width, self.scene.camera.height

    @property
    def disparity_HW(self) -> np.ndarray:
        """float32 1 / metre, 0 in the sky: larger is nearer."""
        out = np.zeros_like(self.depth_HW)
        np.divide(1, self.depth_HW, out=out, where=self.depth_HW > 0)
        return out

    def keypoints(self, number: int) -> tuple[SeenKeypoint, ...]:
        """Keypoints of `scene.instances[number]` in the shape's order; none for clutter."""
        return seen_keypoints(self.scene, number, self.depth_HW, self.instance_HW)

    def objects(self, *, min_pixels: int = 12, min_visibility: float = 0.25) -> list[tuple[Instance, Seen]]:
        """Category objects that a viewer would name: enough visible pixels, not mostly hidden."""
        pairs = zip(self.scene.instances, self.seen, strict=True)
        return [(i, s) for i, s in pairs if i.is_object and s.pixels >= min_pixels and s.visibility >= min_visibility]
