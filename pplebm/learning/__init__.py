"""Learning: an algorithm page on a program, from batches of data to parameters.

`algorithm.Algorithm` owns page, program and hyperparameters; everything that learns or draws asks it. An update draws
positive and negative samples from the page's `sources`, takes the gradient of the page's loss, and hands it to the
`optimizer`. `loop` makes updates of batches, in an order and with noise that the seed alone decides; `safeguards`
look at the figures of every update, and where a tilt runs away the loop rolls back and goes on more slowly.
"""
