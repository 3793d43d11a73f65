"""Models: the gallery of published models, one per page.

Pages are kept in models/ at the top of the repository. `import pplebm.models.<page>` gives the page as a module: its
paper, deviations, hyperparameters, networks and model, declared once for both backends. `pplebm.bind` makes an
ordinary Pyro or NumPyro function of it for a shape of data.
"""

from pplebm.gallery.shelf import shelf as _shelf

__path__ = _shelf("models")
