"""Estimation: what a statistician asks of learned parameters, in nats and in standard errors.

`derivatives` gives gradients by row and second derivatives of a program's densities, `moments` their means over chains,
and `information` makes Louis' observed information of them, for the tables of `table`. `ratio` and `bootstrap` compare
nested models, and `profile` follows one parameter. Data pass from `pplebm.sample` to small matrices of NumPy.
"""
