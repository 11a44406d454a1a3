"""How every figure looks: colours that colour-blind readers tell apart, sizes in centimetres, one set of fonts.

* Draw functions are decorated with `styled`: whatever a user's matplotlibrc says, the figure is the same.
* matplotlib is imported when a figure is made, and never pyplot: no window, no global figure, no backend to choose.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PALETTE: tuple[str, ...] = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
"""Okabe and Ito's colours, the most legible on white first."""
OBJECTIVE_COLOURS: dict[str, str] = {"vl": "#0072B2", "ssl": "#E69F00", "ground": "#009E73", "depth": "#CC79A7"}
"""One colour per training objective, the same in every figure."""
MARKERS: tuple[str, ...] = ("o", "s", "^", "D", "v", "P", "X", "*")
"""One per colour of `PALETTE`, so that no line is told by its colour alone."""
GREY = "#666666"
"""Grid lines, notes, reference values."""
CM_PER_INCH = 2.54

_RC: Any = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "axes.axisbelow": True,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "mtv",
}

P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Run a draw function under this module's settings, whatever the caller's are; they come back afterwards."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_RC)
            return draw(*args, **kwargs)

    return wrapper


@styled
def new_figure(width_cm: float, height_cm: float) -> Figure:
    """An empty figure of that size in centimetres, laid out so that nothing is cut off or overlaps."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_cm / CM_PER_INCH, height_cm / CM_PER_INCH), layout="constrained")


def colour(k: int) -> str:
    """The k-th colour of `PALETTE`, from the start again after the last."""
    return PALETTE[k % len(PALETTE)]


def marker(k: int) -> str:
    """The k-th of `MARKERS`; it changes with every round through the colours, so that pairs do not repeat at once."""
    return MARKERS[(k + k // len(PALETTE)) % len(MARKERS)]
