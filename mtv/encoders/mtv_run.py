"""`mtv:RUN_DIR[/step_N]`: checkpoints of the trainer. The place is kept; the trainer's format is not fixed yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mtv.errors import UsageError

if TYPE_CHECKING:
    from mtv.encoders.base import Encoder
    from mtv.encoders.spec import ModelSpec


def load_run(spec: ModelSpec, *, options: Mapping[str, Any], download: bool) -> Encoder:
    """Refuse, because this version cannot read the trainer's checkpoints.

    Raises:
        UsageError: always.
    """
    raise UsageError(
        f"{spec.text}: checkpoints of mtv-train cannot be loaded yet",
        "Export the run in SiglipModel form and use hf:./EXPORT_DIR.",
    )
