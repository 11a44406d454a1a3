"""Colour jitter, grey and blur of a batch, every view with its own parameters.

The operations and their order are those of DINOv2's local views (torchvision's `ColorJitter`, `Grayscale`,
`GaussianBlur(9)`), on floats in [0, 1] where torchvision rounds to uint8 between them. Notable choices: brightness,
contrast and saturation are one affine step with per-view coefficients; hue turns in closed form without the way back
from HSV by sectors; blur is a matrix per view, with the reflected border inside it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

BLUR_TAPS = 9
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)
_LUMA = (0.2989, 0.587, 0.114)


def jitter_(x_V3HW: Tensor, factor_V4: Tensor, order_V4: Tensor, grey_V: Tensor, sigma_V: Tensor) -> Tensor:
    """Apply jitter, grey and blur to views in place (and return them).

    Args:
        x_V3HW: float32 in [0, 1], on any device; all others in CPU memory.
        factor_V4: brightness, contrast, saturation (1 = as it is) and hue in turns (0 = as it is).
        order_V4: the order in which these four apply.
        grey_V: bool.
        sigma_V: standard deviation of the blur in pixels; 0 = none.
    """
    for slot in range(4):
        _blend_(x_V3HW, factor_V4, order_V4[:, slot])
        turning = (order_V4[:, slot] == _HUE) & (factor_V4[:, _HUE] != 0)
        _on_some_(x_V3HW, turning, turn_hue, factor_V4[:, _HUE])
    _on_some_(x_V3HW, grey_V, lambda x, _: luma(x).expand_as(x), sigma_V)
    _on_some_(x_V3HW, sigma_V > 0, blur, sigma_V)
    return x_V3HW


def luma(x_V3HW: Tensor) -> Tensor:
    """Brightness as the eye sees it: [V, 1, H, W]."""
    r, g, b = x_V3HW[:, 0:1], x_V3HW[:, 1:2], x_V3HW[:, 2:3]
    return (r * _LUMA[0]).add_(g, alpha=_LUMA[1]).add_(b, alpha=_LUMA[2])


def _blend_(x_V3HW: Tensor, factor_V4: Tensor, operation_V: Tensor) -> None:
    """One slot for all views: x <- f x + (1 - f) m with m = 0, the mean luma or the luma; hue slots pass."""
    factor_V = torch.where(
        operation_V == _HUE, 1.0, factor_V4.gather(1, operation_V.clamp(max=_SATURATION)[:, None])[:, 0]
    )
    rest_V = 1 - factor_V
    coefficients_3V = torch.stack(
        [factor_V, rest_V * (operation_V == _SATURATION), rest_V * (operation_V == _CONTRAST)]
    )
    scale, luma_share, mean_share = coefficients_3V.to(x_V3HW.device, non_blocking=True)[:, :, None, None, None]
    luma_V1HW = luma(x_V3HW)
    mean_V111 = luma_V1HW.mean(dim=(1, 2, 3), keepdim=True).mul_(mean_share)
    shift_V1HW = torch.addcmul(mean_V111, luma_V1HW, luma_share, out=luma_V1HW)
    torch.addcmul(shift_V1HW, x_V3HW, scale, out=x_V3HW).clamp_(0, 1)


def _on_some_(
    x_V3HW: Tensor, chosen_V: Tensor, change: Callable[[Tensor, Tensor], Tensor], parameter_V: Tensor
) -> None:
    """Replace the chosen views by `change(views, parameters)`."""
    index = chosen_V.nonzero()[:, 0]
    if len(index):
        on_device = index.to(x_V3HW.device, non_blocking=True)
        parameters = parameter_V[index].to(x_V3HW.device, non_blocking=True)
        x_V3HW[on_device] = change(x_V3HW[on_device], parameters)


def turn_hue(x_V3HW: Tensor, turn_V: Tensor) -> Tensor:
    """Turn the hue by a share of the circle; value and saturation of HSV stay.

    With hue h in sixths of the circle, chroma c and least channel m: red is m + c clamp(|h - 3| - 1, 0, 1), green
    m + c clamp(2 - |h - 2|, 0, 1), blue m + c clamp(2 - |h - 4|, 0, 1).
    """
    r, g, b = x_V3HW.unbind(1)
    largest = torch.maximum(torch.maximum(r, g), b)
    least = torch.minimum(torch.minimum(r, g), b)
    chroma = largest - least
    from_red = g - b
    from_green = (b - r).add_(chroma, alpha=2)
    from_blue = (r - g).add_(chroma, alpha=4)
    # 0 and 1 as floats: the CPU does these many at a time, conditions one by one.
    sixth = torch.lerp(from_blue, from_green, torch.eq(g, largest, out=torch.empty_like(chroma)))
    sixth = torch.lerp(sixth, from_red, torch.eq(r, largest, out=torch.empty_like(chroma)))
    sixth.div_(chroma.clamp(min=1e-12)).add_(6 * turn_V[:, None, None])
    sixth.sub_(sixth.div(6).floor_(), alpha=6)
    out = torch.empty_like(x_V3HW)
    for channel, (centre, sign, base) in enumerate(((3, 1, -1), (2, -1, 2), (4, -1, 2))):
        share = (sixth - centre).abs_().mul_(sign).add_(base).clamp_(0, 1)
        torch.addcmul(least, share, chroma, out=out[:, channel])
    return out


def blur(x_V3HW: Tensor, sigma_V: Tensor) -> Tensor:
    """Gaussian blur with a kernel of nine pixels and reflected borders."""
    V, C, H, W = x_V3HW.shape
    rows = blur_matrix(sigma_V, H)
    columns = rows if H == W else blur_matrix(sigma_V, W)
    wide = torch.bmm(x_V3HW.reshape(V, C * H, W), columns.transpose(1, 2)).reshape(V, C, H, W)
    return torch.matmul(rows[:, None], wide)


def blur_matrix(sigma_V: Tensor, size: int) -> Tensor:
    """The blur of one axis: float32 [V, size, size], for sizes above 4."""
    half = BLUR_TAPS // 2
    offset_T = torch.arange(-half, half + 1, device=sigma_V.device, dtype=torch.float32)
    kernel_VT = torch.softmax(-0.5 * (offset_T / sigma_V[:, None]) ** 2, dim=1)
    at = torch.arange(size, device=sigma_V.device, dtype=torch.float32)
    source = F.pad(at[None], (half, half), mode="reflect")[0].long()
    taps_TSS = F.one_hot(source.unfold(0, size, 1), size).to(kernel_VT)
    return (kernel_VT @ taps_TSS.reshape(BLUR_TAPS, -1)).reshape(-1, size, size)
