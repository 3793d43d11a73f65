"""Changes of hyperparameters for many pages: each takes those that it has."""

from __future__ import annotations

import pplebm
from pplebm.gallery.hyper import override, paths_of


def taken(page, changes):
    """The changes whose names are hyperparameters of a page."""
    return {name: value for name, value in changes.items() if paths_of(page.Hyper(), name)}


def hyper_of(page, changes):
    """The page's hyperparameters with those changes that it takes."""
    return override(page.Hyper(), taken(page, changes), "page")


def of_data(page):
    """Whether a page takes no program with latents."""
    return getattr(page, "WITHOUT_LATENTS", False)


def small_model(page, ppl="pyro", shape=(4,), **hyper):
    """A model that an algorithm page learns: latent_ebm with hyperparameters, or data_ebm without latents."""
    return pplebm.bind("data_ebm", ppl, shape=shape) if of_data(page) else pplebm.bind("latent_ebm", ppl, shape=shape,
                                                                                      **hyper)  # fmt: skip
