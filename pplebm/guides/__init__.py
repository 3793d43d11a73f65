"""Guides q(z|x), learned beside a model and drawn by differentiable maps of normal noise.

`amortized` derives one from the latent sites of a program; a function of the backend will do as well. Either becomes a
`Guide`: noise by `noise(key, n)`, then `at(params, noise, x)` gives latents and log q there, both with gradients in the
guide's parameters, which stand among the model's under the prefix "guide.", or without it where it shares the model's.
`shared` makes the one that an algorithm asks for, `coupling` flows with weights of their own for every datum.
"""
