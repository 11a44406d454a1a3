"""Tasks `rel_nyu` and `rel_kitti`: the model's own depth head, aligned to the truth by scale and shift per picture.

Features are not asked for: a head may need any layer. Predictions are made picture by picture and not kept; the scores
are, so that an interrupted run goes on behind the last picture that was saved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mtv.encoders.base import Encoder
from mtv.encoders.records import DepthHeadRecord
from mtv.errors import DataError
from mtv.eval.datasets.base import DepthSet
from mtv.eval.datasets.registry import open_dataset
from mtv.eval.features.request import FeatureRequest
from mtv.eval.protocols_rel import RelDepthProtocol
from mtv.eval.rel_frames import cropped_size, input_record, input_size
from mtv.eval.rel_panels import PanelRow, draw_rows, shown
from mtv.eval.rel_predictions import predictions
from mtv.eval.task import Scored, Task, TaskRun, stable_subset
from mtv.eval.tasks.common import extremes
from mtv.eval.tasks.rel_depth_outcomes import (
    HEADLINES,
    SAVE_EVERY,
    Outcome,
    inverted,
    load_outcomes,
    outcome_of,
    recipes_of,
    save_outcomes,
    table_of,
)
from mtv.probes.depth_align import AlignConfig, FitMask, check_alignment, check_inverted

if TYPE_CHECKING:
    from PIL import Image

DATASETS = {"rel_nyu": "nyuv2", "rel_kitti": "kitti"}


class RelDepthTask(Task[RelDepthProtocol, DepthSet]):
    """AbsRel and relatives after the fit that the protocol names."""

    def open(self, data: Path) -> DepthSet:
        """The test frames, limited per scene."""
        found = cast(DepthSet, open_dataset(DATASETS[self.name], data))
        if self.protocol.limit is None or self.protocol.limit >= len(found.images):
            return found
        ids = list(found.images)
        kept = stable_subset(ids, [found.items[i].group for i in ids], self.protocol.limit)
        items = {ids[i]: found.items[ids[i]] for i in kept}
        return replace(
            found,
            images={k: found.images[k] for k in items},
            items=items,
            extra_files={f"{k}.depth": v.depth for k, v in items.items()},
        )

    def counts(self, dataset: DepthSet) -> dict[str, int]:
        """Images, and scenes or drives."""
        return {"images": len(dataset.images), "groups": len({i.group for i in dataset.items.values()})}

    def applicable(self, encoder: Encoder) -> str:
        """A depth head is needed, and one that predicts depth needs `align=depth`."""
        head = encoder.info.depth_head
        if head is None:
            return f"{encoder.info.spec} has no depth head"
        if head.kind == "depth" and self.protocol.align == "disp":
            return f"{encoder.info.spec} predicts depth and not disparity: --set {self.name}.align=depth"
        return super().applicable(encoder)

    def requests(self, encoder: Encoder, dataset: DepthSet) -> list[FeatureRequest]:
        """None.

        Raises:
            UsageError: a disparity head is to be aligned in depth, and `force` is not set.
        """
        check_alignment(_head(encoder).kind, self.protocol.align, force=self.protocol.force)
        return []

    def score(self, run: TaskRun[DepthSet]) -> Scored:
        """Predict, align, compare.

        Raises:
            DataError: no picture has a valid pixel.
            UsageError: more than 5 % of the fits are inverted, and `force` is not set. The scores are kept.
        """
        data, p, config = run.dataset, self.protocol, align_config(self.protocol, run.encoder)
        outcomes = self._outcomes(run, config)
        if all(o.model.fit is None for o in outcomes.values()):
            raise DataError(
                f"{self.name}: no picture has a valid pixel",
                f"Scored are depths between {p.min_depth:g} and {p.max_depth:g} m inside mask={p.params['mask']}.",
            )
        if not p.force:
            check_inverted([o.model for o in outcomes.values()])
        return Scored(
            table=table_of(outcomes),
            recipes=recipes_of(outcomes),
            details=self._details(run.encoder, data, config, outcomes),
            diagnosis=self._diagnosis(_head(run.encoder), outcomes),
            pictures=lambda: self._pictures(run, config, outcomes),
        )

    def _outcomes(self, run: TaskRun[DepthSet], config: AlignConfig) -> dict[str, Outcome]:
        """Scores of all pictures in canonical order; saved now and then, and whatever happens."""
        ids = list(run.dataset.images)
        done = load_outcomes(run.work)
        missing = [i for i in ids if i not in done]
        try:
            for frame, pred_HW in predictions(run.encoder, run.dataset, missing, self.protocol):
                done[frame.id] = outcome_of(frame, pred_HW, config)
                run.tick("predict", len(done), len(ids), frame.id)
                if run.work is not None and len(done) % SAVE_EVERY == 0:
                    save_outcomes(run.work, done)
        finally:
            if run.work is not None and missing:
                save_outcomes(run.work, done)
        return {i: done[i] for i in ids}

    def _details(
        self, encoder: Encoder, data: DepthSet, config: AlignConfig, outcomes: dict[str, Outcome]
    ) -> dict[str, Any]:
        record = input_record(encoder, self.protocol)
        cropped = [cropped_size((i.size[1], i.size[0]), self.protocol) for i in data.items.values()]
        sizes = Counter("{}x{}".format(*input_size(size, encoder, self.protocol)) for size in cropped)
        scored = [o for o in outcomes.values() if o.model.fit is not None]
        return {
            "depth_head": _head(encoder).to_dict(),
            "fit_mask": config.fit_mask,
            "input_sizes": dict(sizes),
            "mean": list(record.mean),
            "std": list(record.std),
            "filter": record.filter,
            "n_scored": len(scored),
            "n_empty": len(outcomes) - len(scored),
            "n_inverted": inverted(scored),
            "n_constant": sum(o.model.fit.constant for o in scored if o.model.fit is not None),
        }

    def _diagnosis(self, head: DepthHeadRecord, outcomes: dict[str, Outcome]) -> list[str]:
        scored = [o for o in outcomes.values() if o.model.fit is not None]
        out = []
        if head.fitted_on:
            out.append(f"The depth head is a linear one, fitted on {head.fitted_on}; the model brings none.")
        if label := check_alignment(head.kind, self.protocol.align, force=self.protocol.force):
            out.append(f"{label[0].upper()}{label[1:]}.")
        if n := inverted(scored):
            out.append(f"The fitted scale is not positive in {n} of {len(scored)} pictures.")
        if n := sum(o.model.fit.constant for o in scored if o.model.fit is not None):
            out.append(f"The prediction is constant in {n} of {len(scored)} pictures.")
        if n := len(outcomes) - len(scored):
            out.append(f"{n} of {len(outcomes)} pictures have no valid pixel and are left out.")
        return out

    def _pictures(
        self, run: TaskRun[DepthSet], config: AlignConfig, outcomes: dict[str, Outcome]
    ) -> Iterator[tuple[str, Image.Image]]:
        """The best and worst pictures, predicted again."""
        table = table_of(outcomes)
        (key,) = set(HEADLINES) & set(table)
        ids = table["sample_id"].tolist()
        for kind, positions in zip(("best", "worst"), extremes(-table[key], 8), strict=True):
            chosen = [ids[i] for i in positions]
            drawn = predictions(run.encoder, run.dataset, chosen, self.protocol)
            for turn, (frame, pred_HW) in enumerate(drawn):
                column = shown(frame, pred_HW, outcomes[frame.id].model, config)
                row = PanelRow(title=frame.id, frame=frame, predictions=[column])
                yield f"{kind}-{turn:02d}", draw_rows([row], [("", "prediction")])


def align_config(protocol: RelDepthProtocol, encoder: Encoder) -> AlignConfig:
    """The fit that the protocol names, for this encoder's head."""
    fit_mask: FitMask
    if protocol.fit_mask == "auto":
        fit_mask = "positive" if _head(encoder).floored else "all"
    else:
        fit_mask = protocol.fit_mask
    return AlignConfig(
        align=protocol.align, fit_mask=fit_mask, min_depth=protocol.min_depth, max_depth=protocol.max_depth
    )


def _head(encoder: Encoder) -> DepthHeadRecord:
    head = encoder.info.depth_head
    assert head is not None, "applicable() lets only encoders with a depth head through"
    return head
