"""Kernels: `new_state, info = kernel(key, state, log_density)`, pure, per chain and per datum.

A kernel never sees a model. `log_density` maps latents, a dict of (B, *event), to (B,); acceptance, divergence
and step are each datum's own. State holds what the next step needs, Info what a person wants to see.
"""
