"""Scores of the single entries of data, such as the points of a window: how far each is from what is expected there."""

from __future__ import annotations

from typing import Any

import numpy as np

from pplebm.ppl.language import Data, Params
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.program import Program


def squared_errors(
    program: Program, params: Params, data: Data, latents: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    r"""Squared distance of every entry of the data to its mean given the latents, averaged over draws of these.

    .. math:: \frac1S \sum_s (x_i - E[x_i \mid z_s])^2, \qquad z_s \sim p(z \mid x)

    Entries that are masked have one too, of the values that stand in their place: leave them out.

    Args:
        program, params: any without global latents.
        data: n rows.
        latents: (chains, draws, n, *event) by site, in centered coordinates, of `pplebm.scores.posterior`.

    Returns:
        By observed site (n, *event), in squared units of the model.

    Source: Challu, Jiang, Wu, Callot (AISTATS 2022), whose scores of time points are these at a mode of z.

    Example:
        >>> import torch, pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> z = {site.name: np.zeros((2, 1, 4, *site.shape), "float32") for site in program.latents}
        >>> squared_errors(program, program.params, torch.full((4, 3), 2.0), z)["x"].tolist()[0]
        [4.0, 4.0, 4.0]
    """
    program, ppl, n = program.with_coordinates("centered"), program.ppl, n_rows(data)
    n_chains, n_draws = next(iter(latents.values())).shape[:2]
    rows = take_rows(data, ppl.asarray(np.tile(np.arange(n), n_chains)))
    look = program.compiled("squared errors of entries", lambda params, z, data: program.predict(params, z, data=data))
    values = {site: ppl.to_numpy(a).astype(float) for site, a in program.observed_data(data).items()}
    total: dict[str, Any] = dict.fromkeys(values, 0.0)
    for s in range(n_draws):
        z = {site: ppl.asarray(a[:, s].reshape(-1, *a.shape[3:]), keep=True) for site, a in latents.items()}
        for site, mean in look(params, z, rows).items():
            if site in values:
                by_chain = ppl.to_numpy(mean).astype(float).reshape(n_chains, *values[site].shape)
                total[site] = total[site] + ((by_chain - values[site]) ** 2).mean(0)
    return {site: a / n_draws for site, a in total.items()}
