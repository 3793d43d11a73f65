"""Backends: Pyro with torch, NumPyro with JAX, and what both share; nothing else imports these frameworks.

A backend is a package with the names of `pplebm.ppl.language.PPL`. Its `trace` runs a model on a few rows of the data,
sorts the sites (`structure`), finds out which data each of them reads (`rows`, `dependence`), and gives a `traced`
program: every density and draw is a run of the model (`model_runs`, `visit`) at given latents and rows, compiled once.
"""
