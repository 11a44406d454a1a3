"""`mtv-eval selftest`: planted encoders on tiny data with answers that can be worked out by hand.

Everything runs through the real pipeline (readers, extraction, store, recipes, result store) and the real metrics; only
the pictures and the weights are made up. Layers: hand answers, oracles, invariances, sensitivities, crash, adapters
(`protocols/harness.md` section 9).
"""
