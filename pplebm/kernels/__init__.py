"""Kernels: Markov transitions that know neither a model nor a backend.

A function such as `langevin` or `hmc` checks settings and returns a `Kernel`, plain data and functions of a backend:
`state = kernel.init(ppl, z, log_density)`, then `state, info = kernel(ppl, key, state, log_density)`, pure. Latents are
a dict of (B, *event), `log_density` maps them to (B,); acceptance, divergence and step are each row's own. `batch` and
`metropolis` are what kernels share; `adaptive_hmc` and `mams` are `trajectory` with dynamics of their own in a `metric`
that `fisher` finds from draws and gradients. During warm-up `warming` wraps these two, and `adaptation` those of fixed
length, both by `dual_averaging`. `unrolled` is a run with its gradient.
"""
