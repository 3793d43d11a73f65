"""The gallery of models: one published model per page, kept in models/ at the top of the repository."""

from pplebm.gallery.shelf import shelf as _shelf

__path__ = _shelf("models")
