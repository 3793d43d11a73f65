"""Captions of the pictures of a report: what is shown, what is good and what is bad."""

from pplebm.report.gathered import LENGTHEN, N_CHAINS

CURVES = (
    "Faint: single updates; strong: running mean over a tenth of the run. Reconstruction error should fall and level "
    "off, log-likelihood rise and level off. Gradient norms may fluctuate but not grow. Divergent chains should be at "
    "zero throughout, accepted steps away from zero."
)
TILT_CURVES = (
    " The tilt gap is good if it stays small and level, a nat or so; bad if it grows without end, because negative "
    "chains do not follow the tilt."
)
ROLLBACKS = " Red dotted lines: roll-backs, where learning went back to an earlier update and went on more slowly."
PROFILE = (
    f"{N_CHAINS} chains, run {LENGTHEN} times longer than in learning; the dotted line marks where learning stops "
    "them. Good: both curves are flat from before the dotted line on, and lie near the dashed line, which is the "
    "tilted prior itself (shown where base draws reach it; chains of finite steps settle a little above it in energy). "
    "Bad: curves that still climb or fall at the dotted line. Samples then depend on the number of steps, so keep the "
    "number of learning."
)
STRIP = (
    "Six prior chains, one per row, from their start (step 0) to where learning stops them; decoded means without "
    "noise. Good: rows change at first and end as credible data, all different. Bad: rows that never change (steps too "
    "small), that end alike (collapse), or that leave credible data and do not come back."
)
LATENTS = (
    "Above: the two directions in which the latents given held-out data vary most, on common axes; percentages are "
    "shares of that variance. Below: histograms along the first directions. Good: orange covers what blue covers, "
    "closer than grey does. Bad: orange where there is no blue (samples unlike the data), or blue that "
    "orange misses (data the model never draws)."
)
BASE_MAY_DIFFER = (
    " The base is the model without its tilt and may look worse: what the tilt adds is the step from grey to orange."
)
LATENTS_UNTILTED = (
    "Above: the two directions in which the latents given held-out data vary most, on common axes; percentages are "
    "shares of that variance. Below: histograms along the first directions. Good: blue and grey cover the same ground. "
    "Bad: grey where there is no blue (samples unlike the data), or blue that grey misses (data the model never draws)."
)
LATENTS_WITHOUT_DATA = (
    "Above: the two directions in which the latents of the last panel vary most, on common axes. Below: histograms "
    "along the first directions. Look for what the tilt moves: where orange leaves grey."
)
PAIRS = (
    "Diagonal: histograms. Below it: held-out data (black) over the tilted model (orange). Above it: held-out data "
    "over the base (grey). Good: below the diagonal the two clouds coincide; the base need not match the data."
)
HIERARCHY = (
    "Each row goes out from the draw at its left. The layers named are held exactly, those below are drawn anew given "
    "them, by adjusted chains in the tilted density. The percentage is the share of the variance of the decoded means "
    "that the layers held settle, ± a standard error. Good: rows differ more than pictures within a row do, and all "
    "are credible. Bad: 0 %, when the layers held mean nothing to the data, or 100 %, when those below do not."
)
HIERARCHY_TABLE = (
    "Grey: decoded means of other draws, in their two principal directions. One colour: means that share the layers "
    "named, which are held exactly, while those below are drawn anew given them, by adjusted chains in the tilted "
    "density. The percentage is the share of the variance that the layers held settle, ± a standard error. Good: "
    "colours that keep together. Bad: 0 %, when the layers held mean nothing to the data, or 100 %."
)
TRAVERSAL = (
    "Decoded means as one latent of one draw moves over the quantiles of its marginal under the tilted prior; layers "
    "below keep their noise, and follow. At most eight latents of a layer, those first that change the data most (root "
    "mean square, in brackets beside pictures). Good: changes that can be named. Many latents that change nothing are "
    "a layer wider than it needs to be."
)

# --- long chains beside short runs

RANKS = (
    "Ranks of each chain's draws among those of all, by bins; scalars with the largest R-hat. Good: every line wavers "
    "about the grey one. Bad: a chain that is high at one end, which stays where others do not go."
)
ENERGIES = (
    "Energy of the draws (filled) and its changes between draws (line), about their means. Good: both alike. Bad: the "
    "line much narrower, when momenta cannot carry the chain through its energies."
)
AUTOCORRELATIONS = (
    "Autocorrelation of the long chains by lag, each line a chain. Good: it falls to zero within a few draws."
)
SCALARS = (
    "Scalars with the largest shift. Shift: mean of the short run less that of the long chains, in standard "
    "deviations; σ: the same in standard errors. R-hat: spread between chains beside that within them, 1 where they "
    "agree. ESS, effective sample size: how many independent draws the long chains are worth, for the bulk of the law "
    "and its tails."
)
SHIFTS = (
    "Grey: long adjusted chains, the density itself. Colour: the short run of learning; scalars with the largest "
    "shift. Where they differ, the short run is a model of its own, and its number of steps a part of it."
)
ECDF = (
    "Share of the data simulated from the model whose true value has a rank below k among draws of its posterior, less "
    "that of uniform ranks, for the quantities that look worst. Good: the curve stays in the grey band, which holds "
    "all of it in 95 % of all cases. Bad: above the band on the left and below it on the right, posteriors too narrow; "
    "the other way round, too wide; on one side all along, too high or too low."
)
CALIBRATION = (
    "Histograms of the same ranks; 1 is what uniform ranks have, and a single bar lies in the grey range in 95 % of "
    "all cases. Bad: high at both ends (too narrow), high in the middle (too wide), or slanted."
)
ESTIMATES = (
    "Estimates of the model's parameters, in model units. The column ± is the Monte Carlo error of the standard error "
    "beside it. Robust standard errors hold where the model is wrong; where they are far from the others, it is. A "
    "Newton step that would gain more than its error says that learning has not arrived."
)
EVALUATION = (
    "log p(x) of data that were not learned from, higher is better. The first error is that of the estimator, the "
    "second that of the mean as one over all data like these. Models are told apart by the difference on the same "
    "data, whose error leaves out what varies from datum to datum in both. Bits per dimension are those of the "
    "density in the units of the data."
)
