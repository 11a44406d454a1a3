"""Geometric correspondence between views with depth and pose: what `navi` and `sevenscenes` have in common.

Both match token maps by the ratio rule and measure where matched points land in 3-D and in the picture. They differ in
the pairs, the crop and the lookup; that is all the subclasses say.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from mtv.encoders.base import Encoder
from mtv.eval.artefacts import match_lines
from mtv.eval.datasets.base import FileRef, PosedSet
from mtv.eval.features.request import FeatureRequest
from mtv.eval.preparations import FramePreparation, NaviPreparation
from mtv.eval.protocols import DenseProtocol, NaviProtocol, SevenScenesProtocol
from mtv.eval.task import Scored, Task, TaskRun, stable_subset
from mtv.eval.tasks.common import dense_request, extremes, pixels_of, tap_details, tokens_of
from mtv.hashing import sha256_lines
from mtv.probes.correspondence import (
    PairScore,
    RecallSpec,
    angle_bins,
    bin_counts,
    bin_keys,
    score_pair,
)
from mtv.probes.geometry import relative_pose
from mtv.probes.matching import Matches, match_grids
from mtv.probes.navi_prepare import PreparedItem
from mtv.recipes import Recipe

if TYPE_CHECKING:
    from PIL import Image

P = TypeVar("P", NaviProtocol, SevenScenesProtocol)


class GeometricTask(Task[P, PosedSet], abc.ABC):
    """Pairs, prepared pictures, matches, errors."""

    needs_tokens = True
    spec: ClassVar[RecallSpec]

    @abc.abstractmethod
    def open_all(self, data: Path) -> PosedSet:
        """The whole set."""

    @abc.abstractmethod
    def draw(self, dataset: PosedSet) -> list[tuple[str, str]]:
        """The pairs of the protocol, before the limit."""

    @abc.abstractmethod
    def request_files(self, dataset: PosedSet) -> dict[str, tuple[FileRef, ...]]:
        """Files whose bytes determine the pixels."""

    @abc.abstractmethod
    def preparation(self, dataset: PosedSet) -> NaviPreparation | FramePreparation:
        """Bytes to pixels."""

    @abc.abstractmethod
    def geometry(self, dataset: PosedSet, image: str) -> PreparedItem:
        """Points of the matching grid."""

    @abc.abstractmethod
    def grid_features(self, tokens_HWD: Tensor, encoder: Encoder, item: PreparedItem) -> Tensor:
        """Unit features of every cell of the matching grid."""

    @property
    def pooled_over_matches(self) -> bool:
        """Whether recall pools matches (`probe3d`) or averages pairs (`centered`)."""
        return False

    @property
    def pixel_zoom(self) -> float:
        """Pixels of the network input per pixel of the thresholds in `spec`."""
        return 1.0

    def open(self, data: Path) -> PosedSet:
        """The set, cut to the pairs of the protocol and the images they use."""
        found = self.open_all(data)
        pairs = self.draw(found)
        if self.protocol.limit is not None:
            keep = stable_subset(
                [" ".join(p) for p in pairs], [found.posed[p[0]].group for p in pairs], self.protocol.limit
            )
            pairs = [pairs[i] for i in keep]
        used = {image for pair in pairs for image in pair}
        return replace(
            found,
            pairs=tuple(pairs),
            images={k: v for k, v in found.images.items() if k in used},
            posed={k: v for k, v in found.posed.items() if k in used},
            extra_files={f"depth:{k}": v.depth for k, v in found.posed.items() if k in used},
        )

    def counts(self, dataset: PosedSet) -> dict[str, int]:
        """Images, pairs and objects or scenes."""
        groups = {item.group for item in dataset.posed.values()}
        return {"images": len(dataset.images), "pairs": len(dataset.pairs), "groups": len(groups)}

    def requests(self, encoder: Encoder, dataset: PosedSet) -> list[FeatureRequest]:
        """One token map per picture."""
        files = self.request_files(dataset)
        protocol = cast(DenseProtocol, self.protocol)
        return [dense_request(encoder, dataset.name, files, self.preparation(dataset), protocol)]

    def score(self, run: TaskRun[PosedSet]) -> Scored:
        """Match every pair and measure where the matches land."""
        data = run.dataset
        request = run.requests[0]
        features = run.sets[0]

        @cache
        def item_of(image: str) -> PreparedItem:
            item = self.geometry(data, image)
            return replace(item, image=torch.empty(0, dtype=torch.uint8))

        # 8 upsampled maps of a ViT-B are 0.4 GB; consecutive pairs often share a picture.
        @lru_cache(maxsize=8)
        def grid_of(image: str) -> Tensor:
            tokens = features.get(image)[request.outputs[0]].to(run.encoder.device)
            return self.grid_features(tokens, run.encoder, item_of(image))

        scores: list[PairScore] = []
        matches: dict[int, Matches] = {}
        for i, (a, b) in enumerate(data.pairs):
            item0, item1 = item_of(a), item_of(b)
            found = match_grids(
                grid_of(a),
                item0.valid,
                grid_of(b),
                item1.valid,
                k=self.protocol.matches,
                require_k=self.pooled_over_matches,
                name=f"{a} {b}",
            )
            pose = relative_pose(pose_of(data, a), pose_of(data, b))
            scores.append(score_pair(found, item0.xyz, item1.xyz, pose, item1.focal, self.spec, zoom=self.pixel_zoom))
            matches[i] = found
            run.tick("match", i + 1, len(data.pairs), a)
        return Scored(
            table=self._table(data, scores),
            recipes=self._recipes(),
            details={
                **tap_details(run.encoder, cast(DenseProtocol, self.protocol), request),
                "pair_sha256": pair_hash(data.pairs),
                "n_pairs": len(data.pairs),
                "n_self_pairs": sum(a == b for a, b in data.pairs),
                "n_images": len(data.images),
                "bin_counts": bin_counts(scores, self.spec),
            },
            pictures=lambda: self._pictures(run, scores, matches, item_of),
        )

    def _table(self, data: PosedSet, scores: list[PairScore]) -> dict[str, np.ndarray]:
        names = np.array([f"{a} {b}" for a, b in data.pairs], dtype=str)
        n = np.array([s.n for s in scores], dtype=np.int64)
        bins = angle_bins([s.angle for s in scores], self.spec.bins)
        labels = [*(f"{lo:g}-{hi:g}" for lo, hi in self.spec.bins), "none"]
        table = {
            "sample_id": names,
            "cluster_id": names,
            "stratum": self.strata(data, bins),
            "group": np.array([data.posed[a].group for a, _ in data.pairs], dtype=str),
            "angle": np.array([s.angle for s in scores]),
            "bin": np.array([labels[b] for b in bins], dtype=str),
            "n": n,
        }
        for t, threshold in enumerate(self.spec.metres):
            hits = np.array([s.hits_metres[t] for s in scores], dtype=np.int64)
            table[f"hits_{threshold * 100:g}cm"] = hits
            table[f"recall_{threshold * 100:g}cm"] = hits / n
        for t, threshold in enumerate(self.spec.pixels):
            hits = np.array([s.hits_pixels[t] for s in scores], dtype=np.int64)
            table[f"hits_{threshold:g}px"] = hits
            table[f"recall_{threshold:g}px"] = hits / n
        return table

    def strata(self, data: PosedSet, bins: np.ndarray) -> np.ndarray:
        """What pairs are resampled within: their object."""
        return np.array([data.posed[a].group for a, _ in data.pairs], dtype=str)

    def _recipes(self) -> dict[str, Recipe]:
        out: dict[str, Recipe] = {}
        cm: list[str] = [f"{t * 100:g}cm" for t in self.spec.metres]
        limits = {name: name for name in cm} | {f"{t:g}px": self._pixel_limit(t) for t in self.spec.pixels}
        for name, limit in limits.items():
            how = (
                {"column": f"hits_{name}", "weight": "n"} if self.pooled_over_matches else {"column": f"recall_{name}"}
            )
            out[f"recall_{name}"] = Recipe(kind="ratio", describe=f"matches closer than {limit}", **cast(Any, how))
        at = f"{self.spec.bin_metres * 100:g}cm"
        keys = bin_keys(self.spec)
        for key, (lo, hi) in zip(keys, self.spec.bins, strict=True):
            out[key] = Recipe(
                kind="ratio",
                column=f"recall_{at}",
                where={"bin": f"{lo:g}-{hi:g}"},
                describe=f"mean over pairs turned by {lo:g} to {hi:g} degrees of recall at {at}",
            )
        out["avg_recall"] = Recipe(
            kind="average",
            of=tuple(f"recall_{c}" for c in cm),
            scale=1.0,
            headline=True,
            describe=f"mean of 3-D recall at {', '.join(cm)}",
        )
        out["avg_recall_bins"] = Recipe(kind="average", of=tuple(keys), scale=1.0, describe="mean of the angle bins")
        return out

    def _pixel_limit(self, threshold: float) -> str:
        """A pixel threshold in words; metrics keep the original's name where the input is smaller or larger."""
        zoom = self.pixel_zoom
        return f"{threshold:g}px" + (f" times {zoom:g} (input size over the original's)" if zoom != 1 else "")

    def _pictures(
        self,
        run: TaskRun[PosedSet],
        scores: list[PairScore],
        matches: dict[int, Matches],
        item_of: Any,
    ) -> Iterator[tuple[str, Image.Image]]:
        data, request = run.dataset, run.requests[0]
        t = self.spec.metres.index(self.spec.bin_metres)
        recall = np.array([s.hits_metres[t] / s.n for s in scores])
        for kind, positions in zip(("best", "worst"), extremes(recall, 8), strict=True):
            for turn, i in enumerate(positions):
                a, b = data.pairs[i]
                pictures = [pixels_of(request, k) for k in (a, b)]
                shown = np.linspace(0, scores[i].n - 1, min(60, scores[i].n)).astype(int)
                yield (
                    f"{kind}-{turn:02d}",
                    match_lines(
                        pictures[0],
                        pictures[1],
                        _fractions(matches[i].index0, item_of(a))[shown],
                        _fractions(matches[i].index1, item_of(b))[shown],
                        scores[i].errors_metres[shown] < self.spec.bin_metres,
                        [f"{a} / {b}", f"turned {scores[i].angle:.0f} degrees, recall {100 * recall[i]:.0f} %"],
                        tokens=tokens_of(run, (a, b)),
                    ),
                )


def _fractions(cells_K: Tensor, item: PreparedItem) -> np.ndarray:
    """Flat cells of the matching grid as x, y fractions of the picture."""
    height, width = item.valid.shape
    cells = cells_K.cpu().numpy()
    return np.stack([(cells % width + 0.5) / width, (cells // width + 0.5) / height], axis=1)


def pose_of(data: PosedSet, image: str) -> Tensor:
    """World-to-camera pose of an image, 4,4 float64, metres."""
    return torch.from_numpy(np.asarray(data.posed[image].world_to_camera, dtype=np.float64))


def pair_hash(pairs: tuple[tuple[str, str], ...]) -> str:
    """SHA-256 of the pair list, one `id0 id1` per line."""
    return sha256_lines(f"{a} {b.rsplit('/', 1)[-1]}" for a, b in pairs)
