"""Parts of benchmarks/mnist_anomaly.py.

`splits` makes disjoint rows to learn from, to compare with and to judge; `cells` learns and scores them; `published`
holds the figures of papers; `tables` and `pictures` show what is kept.
"""
