"""Runs: from the arguments of `pplebm.fit` to a run folder, and from the folder back to a learned model.

Arguments become a `config.RunConfig`; `modelling` makes a program of model and data, `job` an algorithm and where it
begins, `learn` runs the loop; `files` and `checkpoints` write what is kept, each file whole or not at all; `folders`
chooses where, `lock` keeps others out, `signals` ends a run early, and `trust` tells whose pages may be run.
`opening` rebuilds all of it from the folder, and `run.Run` is what users ask for samples and scores. `short_run_bias`
sets the chains of learning beside long ones, `long_run` follows them beyond their end, and `layers` draws layers anew
given others, moves single latents, and goes from one datum to another.
"""
