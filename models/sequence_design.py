r"""Sequences and a property of theirs from one latent prompt: sequences are drawn given the property that is wanted.

z₀ ~ N(0, I),    z = U(z₀),    p(x | z) = ∏ₜ softmax g(x₁, …, xₜ₋₁, z)[xₜ],    y | z ~ N( m(z), τ² )
p(x | y) = ∫ p(x | U(z₀)) p(z₀ | y) dz₀:  the posterior of z₀ given the property y alone, and then x given z

U need not be invertible: all inference is in z₀. Symbols are integers, 0 is the end, as in text_decoder. To design,
draw sequences for a property a little above the best, evaluate them, add them to the data, and learn again.
"""

from typing import Any, Literal, NamedTuple

import numpy as np

from pplebm.gallery.hyper import Count, Positive, Whole
from pplebm.gallery.paper import Paper
from pplebm.networks.blocks import unet
from pplebm.networks.layers import Embedding, Net, Recurrent, Reshape, mlp
from pplebm.networks.strings import Reader, Strings

PAPER = Paper("Deqian Kong and Yuhao Huang and Jianwen Xie and Edouardo Honig and Ming Xu and Shuanghong Xue and Pei "
              "Lin and Sanping Zhou and Sheng Zhong and Nanning Zheng and Ying Nian Wu",
              "Molecule Design by Latent Prompt Transformer", 2024, "NeurIPS", arxiv="2402.17179")  # fmt: skip
RESULT = "sequences: median design 9.99, best datum 8.24, even ones 4.28, by variational_joint (models/README.md)"
CHECK = "tests/gallery/test_sequence_design.py::test_prompts_and_sequences_given_a_property_have_their_exact_law"
DEVIATIONS = (
    "z stands beside every symbol, in place of tokens that a transformer attends to.",
    "Prompts given a property are drawn by chains that accept and reject; the paper's are short and cooled.",
    "Learning is as the algorithm says, anew in every round of a design; the paper goes on from the last one.",
)
BACKENDS = ("pyro", "numpyro")
SCALING = "none"  # bring properties to mean 0 and standard deviation 1


class Hyper(NamedTuple):
    symbols: Count = 32  # the end among them
    tokens: Count = 4  # that z0 and z are made of; the paper has 8, of 256 numbers each
    token_dim: Count = 2  # numbers of a token; z0 and z have tokens x token_dim
    levels: Whole = 1  # of the U-Net in tokens: how often their number can be halved
    width: Count = 32  # channels of the U-Net
    activation: Literal["silu", "linear"] = "silu"  # of the U-Net; "linear" makes U an affine map
    units: Count = 64  # of the decoder and of the guide's encoder, as text_decoder
    reader: Reader = "recurrent"  # "attention": a causal transformer, as the paper's
    value_width: Count = 64  # hidden units of m
    value_depth: Whole = 2  # its hidden layers
    tau: Positive = 0.3  # of y given z, in standard deviations of the data


def nets(hyper: Hyper, shape: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """U, the law of sequences given z, and m."""
    h, size, inside = hyper, hyper.tokens * hyper.token_dim, (hyper.tokens, hyper.token_dim)
    layers = unet(*inside, h.width, h.levels, h.activation).layers
    return {
        "prompt": Net(size, (Reshape(inside), *layers, Reshape((size,)))),
        "decoder": Strings(size, shape["x"][0], h.symbols, h.units, h.reader),
        "value": mlp(size, 1, h.value_width, h.value_depth, "silu"),
    }


def model(ppl: Any, net: Any, hyper: Hyper, x: Any, y: Any, observed_x: Any, observed_y: Any) -> None:
    """Declare z0, sequences x, (B, T), and properties y, (B,), each masked where it is not observed, (B,)."""
    with ppl.plate("data", len(y)):
        size = hyper.tokens * hyper.token_dim
        z = net["prompt"](ppl.sample("z0", ppl.dist.Normal(0.0, 1.0).expand([size]).to_event(1)))
        ppl.sample("x", net["decoder"](z).mask(observed_x), obs=x)
        ppl.sample("y", ppl.dist.Normal(net["value"](z)[..., 0], hyper.tau).mask(observed_y), obs=y)


def guide_nets(hyper: Hyper, shape: dict[str, tuple[int, ...]]) -> dict[str, Net]:
    """An encoder of sequences, and a net from what it makes of them, beside the property, to z0."""
    h, layers = hyper, (Embedding(hyper.symbols, hyper.units), Recurrent(hyper.units))
    return {"encoder": Net(shape["x"], layers), "z": mlp(h.units + 3, 2 * h.tokens * h.token_dim, h.units, 1, "silu")}


def guide(ppl: Any, net: Any, hyper: Hyper, x: Any, y: Any, observed_x: Any, observed_y: Any) -> None:
    """Declare z0 given sequences and properties; what is masked is told."""
    with ppl.plate("data", len(y)):
        columns = [1.0 * a[:, None] for a in (y, observed_x, observed_y)]
        h, size = net["z"](ppl.concat([net["encoder"](x), *columns], 1)), hyper.tokens * hyper.token_dim
        ppl.sample("z0", ppl.dist.Normal(h[..., :size], ppl.softplus(h[..., size:]) + 0.01).to_event(1))


def wanted(y: Any, length: int) -> dict[str, np.ndarray]:
    """Rows of properties y, (n,), whose sequences are to be drawn; the sequences that stand there are masked."""
    x, seen = np.zeros((len(y), length), int), np.ones(len(y), bool)
    return {"x": x, "y": np.asarray(y, float), "observed_x": ~seen, "observed_y": seen}


def known(x: Any, y: Any) -> dict[str, np.ndarray]:
    """Sequences and their properties as data of `model`, all observed."""
    return wanted(y, np.shape(x)[1]) | {"x": np.asarray(x, int), "observed_x": np.ones(len(y), bool)}
