r"""Guides derived from a program, by the number, the shapes and the order of its latent sites."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from pplebm.errors import PplebmError
from pplebm.guides.guide import Guide
from pplebm.networks import layers as nets
from pplebm.networks.encoders import encoder as encoding
from pplebm.networks.flows import Flow
from pplebm.networks.layers import Net
from pplebm.ppl.language import PPL, Data, Site
from pplebm.ppl.trees import n_rows, tree_values
from pplebm.program import Program

FAMILIES = ("mean_field", "ladder", "top_down")
MIN_SCALE = 0.01  # least standard deviation of q, far below that of any posterior worth a guide


def amortized(
    program: Program,
    encoder: str | Net | None = None,
    family: str = "ladder",
    width: int = 128,
    depth: int = 2,
    channels: int = 32,
    activation: str = "silu",
    n_transforms: int = 0,
    seed: int = 0,
) -> Guide:
    r"""Derive a guide from the latent sites of a program: normals or flows in their unconstrained coordinates.

    With z1 the site that the program draws last, next to the data, and zL the one it draws first:

    - "mean_field": :math:`q(z \mid x) = \prod_i q(z_i \mid x)`;
    - "ladder", bottom-up: :math:`q(z_1 \mid x) \prod_i q(z_{i+1} \mid z_i)`, the shape of the inference network of
      Cui et al., whose data depend on z1 alone; a site on which the data depend as well has :math:`q(z_{i+1} \mid
      z_i, x)`, without which it would not learn of them;
    - "top_down": a shared deterministic pass :math:`h_1 = e(x), h_{i+1} = d_i(h_i)`, then
      :math:`q(z_L \mid h_L) \prod_i q(z_i \mid z_{i+1}, h_i)`.

    Args:
        program: any program whose latents all stand in the data plate; constrained supports are fine.
        encoder: "dense", "conv", "series" or "recurrent", see `pplebm.networks.encoders.encoder`, or a net of your own
            from the data's shape to a vector; chosen by the data's shape if left out. Data of several arrays are put
            side by side as one vector, covariates among them.
        family: see above.
        width, depth, channels, activation: of the nets; the vector that an encoder gives has `width` entries.
        n_transforms: of a flow (`pplebm.networks.flows`) in the place of every normal; 0 keeps the normals. Sites of
            one number stay normal. In Pyro flows need zuko, `pip install "pplebm[flows]"`.
        seed: of the initial weights.

    Raises:
        PplebmError: for a family or an encoder that is not known or does not fit the data, or a global latent.

    Source: Sønderby et al. (NeurIPS 2016), section 2, for the top-down pass; Cui, Wu, Han (CVPR 2023) for the ladder.

    Example:
        >>> import torch, pplebm
        >>> program = pplebm.Program(pplebm.bind("joint_ebm", shape=(8, 8)))
        >>> guide = amortized(program, family="top_down")
        >>> z, log_q = guide.draw(0, guide.params, torch.zeros(5, 8, 8))
        >>> {name: tuple(a.shape) for name, a in z.items()}, tuple(log_q.shape)
        ({'z2': (5, 8), 'z1': (5, 16)}, (5,))
    """
    if family not in FAMILIES:
        raise PplebmError(f"family '{family}' is not known; choose one of {', '.join(FAMILIES)}.")
    program.refuse_global_latents("a derived guide")
    sites, ppl = program.latents[::-1], program.ppl
    shape = _shape_of(program.example)
    first = encoder if isinstance(encoder, Net) else encoding(encoder, shape, width, width, depth, channels, activation)
    seen = _next_to_data(program) if family == "ladder" else frozenset()
    declared = _nets(family, sites, first, width, depth, activation, seen) | _flows(sites, width, n_transforms)
    page = SimpleNamespace(
        __name__="guide", nets=lambda hyper, shape: declared, model=_declaration(family, sites, program.plate, seen)
    )
    bound = ppl.bind(page, None, shape, seed)
    return Guide(program, _of_columns(ppl, bound, program.example), is_unconstrained=True)


def _shape_of(data: Data) -> tuple[int, ...]:
    """Shape of a datum as the encoder sees it: its own of one array, a vector of all numbers of several."""
    leaves = [tuple(leaf.shape[1:]) for leaf in tree_values(data)]
    return leaves[0] if not isinstance(data, (Mapping, tuple)) else (sum(math.prod(shape) for shape in leaves),)


def _of_columns(ppl: PPL, bound: Any, data: Data) -> Any:
    """A guide of one array as a guide of data of several, which are put side by side."""
    if not isinstance(data, (Mapping, tuple)):
        return bound

    def joined(data: Data) -> Any:
        return ppl.concat([1.0 * leaf.reshape(len(leaf), -1) for leaf in tree_values(data)], 1)

    if isinstance(data, Mapping):
        return lambda **data: bound(joined(data))
    return lambda *data: bound(joined(data))


def _next_to_data(program: Program) -> frozenset[str]:
    """Latent sites on which the likelihood depends when all others are held: some gradient is not 0."""
    if len(program.latents) == 1:
        return frozenset()
    centered, ppl, data = program.with_coordinates("centered"), program.ppl, program.data(program.example)
    rng, like = np.random.default_rng(program.seed), centered.zeros(n_rows(data))  # anywhere; the same on all backends
    z = {name: a + ppl.asarray(rng.normal(size=tuple(a.shape))) for name, a in like.items()}
    _, slope = ppl.value_and_grad(lambda z: centered.log_likelihood(program.params, z, data), z)
    return frozenset(name for name, a in slope.items() if bool((a != 0.0).any()))


def _size(site: Site) -> int:
    return max(1, math.prod(site.shape))


def _nets(
    family: str, sites: tuple[Site, ...], encoder: Net, width: int, depth: int, activation: str, seen: frozenset[str]
) -> dict[str, Any]:
    """Networks as data; `sites` bottom-up, of which `seen` are those that a ladder shows the data."""
    features = nets.shapes(encoder)[-1]
    if len(features) != 1:
        raise PplebmError(f"the encoder ends in shape {features}; a guide needs a vector.")
    found, size = {"encoder": encoder}, features[0]
    for i, site in enumerate(sites):
        if family == "ladder":
            inputs, hidden = (_size(sites[i - 1]) + size * (site.name in seen), depth) if i else (size, 0)
        else:
            inputs, hidden = size, int(family == "top_down")
        found[f"q_{site.name}"] = nets.mlp(inputs, 2 * _size(site), width, hidden, activation)
        if family == "top_down" and i:
            found[f"up_{site.name}"] = nets.mlp(size, size, width, 1, activation, last=activation)
            found[f"lift_{site.name}"] = nets.mlp(_size(site), size, depth=0)  # joins the features of the site below
    return found


def _flows(sites: tuple[Site, ...], width: int, n_transforms: int) -> dict[str, Flow]:
    if n_transforms < 0:
        raise PplebmError(f"n_transforms must be 0, for normals, or positive, got {n_transforms}.")
    found = {}
    for site in sites if n_transforms else ():
        if len(site.shape) > 1:
            raise PplebmError(
                f"latent '{site.name}' has shape {site.shape}; a flow needs a vector, normals (n_transforms=0) do not."
            )
        if _size(site) > 1:
            found[f"flow_{site.name}"] = Flow(site.shape[0], width, n_transforms, MIN_SCALE)
    return found


def _declaration(family: str, sites: tuple[Site, ...], plate: str, seen: frozenset[str]) -> Any:
    """The guide as a page's model; `sites` bottom-up."""

    def draw(ppl: PPL, net: Any, site: Site, h: Any) -> Any:
        size = _size(site)
        if f"flow_{site.name}" in net:
            return ppl.sample(site.name, net[f"flow_{site.name}"](h))
        mean, scale = h[..., :size], ppl.softplus(h[..., size:]) + MIN_SCALE
        shape = (len(h), *site.shape)
        normal = ppl.dist.Normal(mean.reshape(shape), scale.reshape(shape)).to_event(len(site.shape))
        return ppl.sample(site.name, normal).reshape(len(h), size)

    def model(ppl: PPL, net: Any, hyper: Any, x: Any = None, n: int | None = None) -> None:
        with ppl.plate(plate, len(x)):
            h = net["encoder"](x)
            if family == "top_down":
                features = [h]
                for site in sites[1:]:
                    features.append(net[f"up_{site.name}"](features[-1]))
                above: Any = 0.0
                for i in range(len(sites) - 1, -1, -1):
                    z = draw(ppl, net, sites[i], net[f"q_{sites[i].name}"](features[i] + above))
                    above = net[f"lift_{sites[i].name}"](z) if i else 0.0
                return
            last: Any = None
            for site in sites:
                below = h if last is None or family != "ladder" else last
                if last is not None and site.name in seen:
                    below = ppl.concat([last, h], 1)
                last = draw(ppl, net, site, net[f"q_{site.name}"](below))

    return model
