"""pplebm's kernels inside the hosts' own machinery: `pplebm.interop.pyro` and `pplebm.interop.numpyro`."""
