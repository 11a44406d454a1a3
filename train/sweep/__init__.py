"""`mtv-train sweep`: many runs that differ in objectives, seed and recipe, each trained and measured, resumable.

`plan` says what there is to do, `manifest` keeps the plan of a folder, `state` reads from the disk what is done, `work`
does the rest with child processes, `slurm` writes it down for a cluster instead.
"""
