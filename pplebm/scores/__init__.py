"""Scores: how anomalous data are under a tilted program, how well that separates, and what may be concluded from it.

`posterior` draws latents given data and averages the log density of every site over them; `conditional` draws lower
layers given upper ones, tilts included. `scoring.Scoring` holds these averages, made when first asked for; a score
(`registry`) is a function of it that gives a value and its Monte Carlo error for every datum, higher the more
anomalous; `entries` has those of single entries of data. `metrics`, `series_metrics` and `conformal` need nothing but
scores, as arrays (n,).
"""

from pplebm.scores.front import anomaly_scores as anomaly_scores
from pplebm.scores.front import decomposition as decomposition
from pplebm.scores.registry import SCORES as SCORES
