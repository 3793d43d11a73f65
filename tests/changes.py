"""Changes of hyperparameters for many pages: each takes those that it has."""

from __future__ import annotations

from pplebm.gallery.hyper import override, paths_of


def taken(page, changes):
    """The changes whose names are hyperparameters of a page."""
    return {name: value for name, value in changes.items() if paths_of(page.Hyper(), name)}


def hyper_of(page, changes):
    """The page's hyperparameters with those changes that it takes."""
    return override(page.Hyper(), taken(page, changes), "page")
