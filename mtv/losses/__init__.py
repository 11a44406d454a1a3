"""The losses of MTV, one per file, each in the per-rank form whose plain average over ranks is the global loss."""
