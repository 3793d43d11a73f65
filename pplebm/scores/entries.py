"""Scores of the single entries of data, such as the points of a window: how far each is from what is expected there."""

from __future__ import annotations

from typing import Any

import numpy as np

from pplebm.errors import PplebmError
from pplebm.ppl.language import Array, Data, Latents, Params
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

    Raises:
        PplebmError: for a site whose mean has another shape than its values.

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
    look = program.compiled("squares of entries", lambda params, z, data: squares(program, params, z, data))
    total: dict[str, Any] = {}
    for s in range(n_draws):
        z = {site: ppl.asarray(a[:, s].reshape(-1, *a.shape[3:]), keep=True) for site, a in latents.items()}
        for site, square in look(params, z, rows).items():
            by_chain = ppl.to_numpy(square).astype(float).reshape(n_chains, n, *square.shape[1:])
            total[site] = total.get(site, 0.0) + by_chain.mean(0)
    return {site: a / n_draws for site, a in total.items()}


def squares(program: Program, params: Params, z: Latents, data: Data) -> dict[str, Array]:
    """Squared distances of data to their mean given latents, entry by entry, by observed site.

    Raises:
        PplebmError: for a site whose mean has another shape than its values.
    """
    means, values = program.predict(params, z, data=data), program.observed_data(data)
    for site, mean in means.items():
        if tuple(mean.shape) != tuple(values[site].shape):
            raise PplebmError(
                f"the mean of observed site '{site}' has shape {tuple(mean.shape)} and its values have "
                f"{tuple(values[site].shape)}, so there is no squared error; score by 'likelihood'."
            )
    return {site: (mean - values[site]) ** 2 for site, mean in means.items()}
