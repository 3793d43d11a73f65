"""Networks as data, which every backend builds with the same initial weights.

A `Net` is a tuple of `layers`, each of which knows the shape of its output and its weights; `decoders` and `encoders`
choose layers for data of a given shape, `blocks` has those of sequences, `flows` conditional flows and coupling layers,
`strings` laws of strings of symbols, `operators` fixed matrices of instruments, and `halves` cuts a net in two. The
`nets` of a page returns networks by name; a backend's `declare.bind` draws the weights from a seed, and the page calls
`net[name]` on latents or data.
"""
