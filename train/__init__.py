"""The reference trainer of MTV: recipes, sample order and views, loop, checkpoints, the `mtv-train` command."""
