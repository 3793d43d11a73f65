"""AUPRC of a held-out digit as papers report it; none of them is of the split used here."""

DIGITS = (1, 4, 5, 7, 9)
PUBLISHED: dict[str, tuple[str, ...]] = {  # in the order of DIGITS
    "VAE (a)": (".063", ".337", ".325", ".148", ".104"),
    "MEG (a)": (".281 ± .035", ".401 ± .061", ".402 ± .062", ".290 ± .040", ".342 ± .034"),
    "BiGAN-σ (a)": (".287 ± .023", ".443 ± .029", ".514 ± .029", ".347 ± .017", ".307 ± .028"),
    "OT-SRI (a)": (".353 ± .021", ".770 ± .024", ".726 ± .030", ".550 ± .013", ".555 ± .023"),
    "latent EBM (a)": (".336 ± .008", ".630 ± .017", ".619 ± .013", ".463 ± .009", ".413 ± .010"),
    "joint EBM (a)": (".470 ± .009", ".941 ± .001", ".964 ± .003", ".815 ± .004", ".796 ± .004"),
    "hierarchical VAE, Gaussian prior (b)": (".494 ± .004", ".920 ± .004", ".913 ± .003", ".680 ± .006", ".791 ± .008"),
    "the joint EBM's sequel (b)": (".722 ± .010", ".949 ± .002", ".980 ± .001", ".941 ± .003", ".935 ± .003"),
    "DAMC (c)": (".684", ".911", ".939", ".801", "–"),
}
SOURCES = (
    "(a) Cui, Wu, Han, CVPR 2023, arXiv:2306.06323, its own row and those it cites; (b) its authors' sequel, ICCV "
    "2023, arXiv:2310.09604, table 3; (c) a public table of results. Score: minus the unnormalised log posterior. "
    "± is over the last ten epochs of one run, not over seeds. In the code that this protocol goes back to, the split "
    "is drawn twice, so that some four fifths of the normal images to judge were learned from; which split each row "
    "used is not known but for DAMC, whose split is disjoint and whose checkpoint is chosen by the figure itself. The "
    "row of VAE is below the floor of this prevalence, so it is of another set of images."
)
