"""transformers without its own talk: what of it matters becomes our error or our record."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(*, bars: bool) -> Iterator[None]:
    """Errors only. The library also warns about its own defaults, which nobody asked for and no file holds.

    Args:
        bars: keep progress bars, for what may be a download.
    """
    from transformers.utils import logging as hf_logging

    verbosity, shown = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    if not bars:
        hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if shown:
            hf_logging.enable_progress_bar()
