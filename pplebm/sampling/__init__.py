"""Many chains at once, and what becomes of their draws.

`chains` runs a kernel in the density of a program, a chain for every row: fresh short runs, or a state that goes on;
`buffers` keeps chains between updates of learning. `sampler` makes warm-up and draws out of `blocks` of steps, to be
interrupted anywhere, and returns `Draws`, NumPy arrays by site, which `diagnostics`, `predictive` and `to_arviz` read.
`diagnostics` asks `convergence` for figures, `verdicts` and `arrival` for signs of each cause of trouble in `suspects`,
and `probes` for what the program alone can tell. `importance` sees draws of the base as weighted draws of the tilted
prior, and `guide_draws` those of a guide as weighted draws of the posterior.
"""
