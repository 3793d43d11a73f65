"""Runs: from the arguments of `pplebm.fit` to a run folder, and from the folder back to a learned model.

Arguments become a `config.RunConfig`; `modelling` makes a program of model and data, `job` an algorithm and where it
begins, `learn` runs the loop, and `files` writes manifest, metrics and checkpoints, each whole or not at all.
`opening` rebuilds all of it from the folder, and `run.Run` is what users ask for samples and scores. `short_run_bias`
sets the chains of learning beside long ones.
"""
