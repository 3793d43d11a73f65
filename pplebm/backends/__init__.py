"""The hosts: the only places that import torch and pyro, or jax and numpyro."""
