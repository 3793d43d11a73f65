"""The narrow waist: all that kernels, objectives and pages may ask of a backend, and the trees that pass through it.

`language` declares the names (`PPL`), what a traced program can do (`Traced`), and finds a backend by name. Latents,
parameters and data are trees of arrays, rows first (`trees`); processes that learn together share them by `parallel`.
Arrays are the backend's own from the program on; numbers for people leave by `ppl.to_numpy`.
"""
