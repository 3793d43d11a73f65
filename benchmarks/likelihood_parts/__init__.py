"""Parts of the benchmark of held-out likelihoods.

`known` holds generators whose log p(x) is exact, with their truth and their maximum; `images` reads sets of images and
estimates theirs; `cells` measures one page on one of either with one seed; `tables` shows what is kept.
"""
