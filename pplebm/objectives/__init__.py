"""Objectives: `objective(program, params, x, ...) -> scalar, aux`, to be minimised over the parameters.

They take samples of the posterior and of the tilted prior, or a guide, and give a scalar whose gradient learns and
by-products to report. `contrast` is maximum likelihood by both phases, `elbo` the bound of a guide, `mmd` its InfoVAE
kin, `nce` a density ratio without chains, `score_matching` the gradient of a density of data,
`short_run_divergence` learns step sizes. For every parameter that enters
log Z they have the negative phase; `negative` has it alone.
"""
