"""The gallery of algorithms: one published algorithm per page, kept in inference/ at the top of the repository."""

from pplebm.gallery.shelf import shelf as _shelf

__path__ = _shelf("inference")
