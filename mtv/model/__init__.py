"""The MTV model: SigLIP towers, self-supervised heads, Prompter and DPT head, with their weights in and out."""
