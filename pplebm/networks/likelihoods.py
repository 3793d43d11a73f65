"""Laws of pixels or columns given what a decoder makes of the latents."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pplebm.errors import PplebmError

Likelihood = Literal["normal", "bernoulli"]


def likelihood(ppl: Any, kind: str, mean: Any, sigma: Any) -> Any:
    r"""Law of x given the output g of a decoder, with all axes but that of the data as its event.

    .. math:: N(x; g, \sigma^2 I) \quad \text{or} \quad \mathrm{Bernoulli}(x; \mathrm{sigmoid}(g))

    Args:
        ppl: language of the backend.
        kind: "normal", or "bernoulli" for data of 0 and 1.
        mean: g, (data, *event).
        sigma: of normal data.

    Raises:
        PplebmError: for another kind.

    >>> from pplebm.ppl.language import load_backend
    >>> ppl = load_backend("pyro")
    >>> law = likelihood(ppl, "bernoulli", ppl.asarray([[0.0, 2.0]]), 0.3)
    >>> round(float(law.log_prob(ppl.asarray([[1.0, 1.0]]))), 2)  # log 1/2 - log(1 + exp(-2))
    -0.82
    """
    if kind not in get_args(Likelihood):
        raise PplebmError(f"likelihood '{kind}' is not known; choose one of {', '.join(get_args(Likelihood))}.")
    given_z = ppl.dist.Bernoulli(logits=mean) if kind == "bernoulli" else ppl.dist.Normal(mean, sigma)
    return given_z.to_event(mean.ndim - 1)
