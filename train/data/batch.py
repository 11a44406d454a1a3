"""What a training step receives (`Batch`), and what has to be made for it (`Needs`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Views and labels that the active objectives ask for; keys, global view and caption are always there."""

    locals: bool = False
    """Local views."""
    mask: bool = False
    """Masks of patches."""
    regions: bool = False
    """Boxes with names."""
    depth: bool = False
    """Disparity."""

    def __or__(self, other: Needs) -> Needs:
        """What either asks for."""
        return Needs(
            locals=self.locals or other.locals,
            mask=self.mask or other.mask,
            regions=self.regions or other.regions,
            depth=self.depth or other.depth,
        )


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A local batch on the training device; what `Needs` leaves out is None."""

    keys: tuple[str, ...]
    """Sample keys; a bad sample appears as the key of its substitute."""
    global_BCHW: Tensor
    """float32 B,3,S,S global views, (x/255 - 0.5)/0.5."""
    local_BMCHW: Tensor | None = None
    """float32 B,M,3,s,s local views, same values."""
    mask_BN: Tensor | None = None
    """bool B,N: True where a patch is masked, floor(ratio * N) per row, row-major patches."""
    text_BT: Tensor
    """int64 B,T caption tokens."""
    box_BR4: Tensor | None = None
    """float32 B,R,4: x0, y0, x1, y1 in fractions of the global view; 0, 0, 1, 1 in empty slots."""
    region_text_BRT: Tensor | None = None
    """int64 B,R,T name tokens; those of the empty string in empty slots."""
    region_valid_BR: Tensor | None = None
    """bool B,R: the slot holds a region."""
    region_name_BR: Tensor | None = None
    """int64 B,R: id of the name, equal for names with equal tokens; 0 in empty slots."""
    depth_BHW: Tensor | None = None
    """float32 B,S,S disparity in label units, larger = nearer; 0 where it is not valid."""
    depth_valid_B: Tensor | None = None
    """bool B: the image has a disparity label that is not constant."""

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The batch with its tensors on `device`."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=non_blocking)
            for name, value in vars(self).items()
            if name != "keys" and value is not None
        }
        return replace(self, **moved)
