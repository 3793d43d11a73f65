"""Inference: the gallery of published algorithms, one per page.

Pages are kept in inference/ at the top of the repository. `import pplebm.inference.<page>` gives the page as a
module: its paper, deviations, hyperparameters, where samples come from, and the loss.
`pplebm.learning.algorithm.Algorithm` puts it on a program.
"""

from pplebm.gallery.shelf import shelf as _shelf

__path__ = _shelf("inference")
