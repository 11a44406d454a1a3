"""A task under one protocol, ready to run on any model. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from mtv.eval.protocol import Protocol


@dataclass(frozen=True, kw_only=True)
class Job:
    """A task to run on every model."""

    protocol: Protocol
    """With all overrides applied."""
    preset: str
    """Name of the preset it started from."""
    suite: str = ""
    """Suite that brought it, empty for a task asked for by name."""

    @property
    def optional(self) -> bool:
        """From a suite: skipped for encoders it does not suit, instead of failing."""
        return bool(self.suite)
