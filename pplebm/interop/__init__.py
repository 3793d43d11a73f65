"""Kernels for the hosts' `MCMC` and losses for their `SVI`.

`pplebm.interop.pyro`, `pplebm.interop.numpyro`; `pplebm.interop.pyro_svi`, `pplebm.interop.numpyro_svi`.
"""
