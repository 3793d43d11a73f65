"""What the benchmarks of series share.

`scores` has figures of scores of points and the scores that stand beside a model's, `missing` asks a run for values
that are taken out, `learned` compares a model and its untilted twin on one series, `channels` reads SMAP and MSL, and
`tables` writes figures down.
Windows are those of `pplebm.data`; rows of figures are nested dictionaries of numbers, as json keeps them.
"""
