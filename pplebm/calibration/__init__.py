"""Calibration: whether the posteriors that a way of inference gives are those of the tilted program, on average.

`replications` draws latents from the tilted prior, data from them, and posteriors of all these data in one batch, by a
way of `posteriors`; `quantities` makes numbers of both, `uniformity` ranks and their bands, and `sbc` puts them
together. `averaged` compares the data-averaged posterior with the prior, `checks` data with replicated data, `compare`
programs by their evidence; `simulator` lends a program to packages that calibrate by themselves.
"""
