"""Many chains at once, and what becomes of their draws.

`chains` runs a kernel in the density of a program, a chain for every row: fresh short runs, or a state that goes on;
`buffers` keeps chains between updates of learning. `sampler` has a `job` make warm-up and draws in `blocks` of steps,
to be interrupted anywhere, from the `starts`, with what `warmup` sets between windows; `wide` takes more data than one
batch holds batch by batch. It returns `Draws`, NumPy arrays by site, or has `store` put them into a netCDF file of
`streamed` groups, which grows by `appending` and is read as arrays that stay `on_disk`. `diagnostics`, `predictive` and
`to_arviz`, which has arrays `labelled`, read both. `diagnostics` asks `convergence` for figures, `verdicts` and
`arrival` for signs of each cause of trouble in `suspects`, and `probes` for what the program alone can tell.
`prior_pool` keeps weighted chains of the tilted prior, `particles`, right while parameters move.
`importance` sees draws of the base as weighted draws of the tilted prior, `guide_draws` those of a guide as weighted
draws of the posterior.
`clamped` draws some sites given the others, and `interpolate` goes from one latent to another where the prior is dense.
"""
