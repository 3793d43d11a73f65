"""Parts of pplebm inside the hosts' own machinery: kernels for their `MCMC`, losses for their `SVI`.

`pyro` and `numpyro` hand a host's potential to a kernel, as one chain of one row (`one_chain` is what both share), and
draws back to the host. `pyro_svi` and `numpyro_svi` add to a host's `Trace_ELBO` the gradient of log Z, by short runs
of the same model as a `Program` (`tilted_bound`). A module imports its own host only.
"""
