"""Words of a report on each metric of learning, under the name that it has in the `Info` of an update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pplebm.report.figures import DATA, POSTERIOR, PRIOR, Panel

POSITIVE, NEGATIVE = POSTERIOR, PRIOR  # colours, by the law that samples are of


class Metric(NamedTuple):
    """A metric in words: its name, and one sentence on how to read it."""

    name: str
    sentence: str
    is_share: bool = False
    is_of_tilt: bool = False  # says nothing of a model without a tilt


METRICS = {
    "tilt_gap": Metric(
        "Tilt gap, nats",
        "Mean tilt of the positive samples less that of the negative ones. Good: small and level. Growth without end: "
        "the negative chains no longer follow the tilt.",
        is_of_tilt=True,
    ),
    "tilt_positive": Metric("Mean tilt of positive samples, nats", "", is_of_tilt=True),
    "tilt_negative": Metric("Mean tilt of negative samples, nats", "", is_of_tilt=True),
    "tilt_saturation": Metric(
        "Saturated tilts",
        "Share of values of a bounded tilt beyond 95 % of its bound, where it passes hardly any gradient. Good: 0 %.",
        is_share=True,
        is_of_tilt=True,
    ),
    "grad_norm": Metric("Gradient norm", "Of all parameters, before it is clipped. Good: level, not growing."),
    "grad_norm_tilt": Metric(
        "Gradient norm of the tilt", "Near zero from the start on: the tilt learns nothing.", is_of_tilt=True
    ),
    "divergent_positive": Metric(
        "Divergent positive chains", "Share of chains with a step that is not finite. Good: 0 %.", is_share=True
    ),
    "divergent_negative": Metric(
        "Divergent negative chains",
        "The same for chains of the tilted prior. Good: 0 %.",
        is_share=True,
        is_of_tilt=True,
    ),
    "accepted_positive": Metric(
        "Accepted positive steps",
        "Mean acceptance of adjusted steps, which find their own size; 100 % where steps are not adjusted. Good: about "
        "57 %, for mala; near 0 % chains stand still.",
        is_share=True,
    ),
    "accepted_negative": Metric(
        "Accepted negative steps", "The same for chains of the tilted prior.", is_share=True, is_of_tilt=True
    ),
}
PANELS = (
    Panel("Tilt gap, nats", (("tilt_gap", PRIOR),)),
    Panel("Held-out error", (("held_out_error", POSTERIOR),)),
    Panel("Log-likelihood, nats", (("log_likelihood", POSTERIOR),)),
    Panel("Mean tilt f, nats", (("tilt_positive", POSITIVE), ("tilt_negative", NEGATIVE))),
    Panel("Gradient norm", (("grad_norm", DATA), ("grad_norm_tilt", PRIOR)), is_logarithmic=True),
    Panel("Share of divergent chains", (("divergent_positive", POSITIVE), ("divergent_negative", NEGATIVE))),
    Panel("Share of accepted steps", (("accepted_positive", POSITIVE), ("accepted_negative", NEGATIVE))),
    Panel("Share of saturated tilts", (("tilt_saturation", PRIOR),)),
)


def is_shown(name: str, has_tilt: bool) -> bool:
    """Whether a column says something of a model with a tilt, or of one without.

    >>> is_shown("tilt_gap", has_tilt=False), is_shown("grad_norm", has_tilt=False)
    (False, True)
    """
    return has_tilt or not (name.startswith("tilt") or (name in METRICS and METRICS[name].is_of_tilt))


def explained(names: list[str], reports: Mapping[str, str]) -> str:
    """One sentence on further metrics, of which an algorithm says what they are.

    >>> explained(["nce", "mine"], {"nce": "logistic loss, 2 log 2 for a flat tilt"})
    ' nce: logistic loss, 2 log 2 for a flat tilt.'
    """
    told = [f"{name}: {reports[name]}" for name in names if name in reports]
    return f" {'; '.join(told)}." if told else ""
