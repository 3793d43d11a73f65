"""Galleries: pages of models and algorithms, found by listing a folder, by name or by path.

`shelf` tells where the folders are, `pages` loads a page, copies it and binds a model page to a backend and a shape
of data, `hyper` changes its hyperparameters by name, checks their ranges and flattens nested ones, and `paper` has its
publication in parts. In goes a name, out comes a module, or a model as an ordinary Pyro or NumPyro function.
"""
