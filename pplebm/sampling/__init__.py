"""Many chains at once, and what becomes of their draws.

`chains` runs a kernel in the density of a program, a chain for every row: fresh short runs, or a state that goes on;
`buffers` keeps chains between updates of learning. `sampler` makes warm-up and draws out of `blocks` of steps, to be
interrupted anywhere, and returns `Draws`, NumPy arrays by site, which `diagnostics`, `predictive` and `to_arviz` read.
`importance` sees draws of the base as weighted draws of the tilted prior.
"""
