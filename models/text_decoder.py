r"""Strings of characters from one latent vector: a causal decoder sees it beside what stands before each character.

p(z) = 1/Z · exp[ f(z) ] · N(z; 0, I),      p(x | z) = ∏ₜ softmax g(x₁, …, xₜ₋₁, z)[xₜ],   t = 1..T, up to the end

Without a tilt, f = 0 and Z = 1, which is the published model. Characters are integers; 0 is the end, and what stands
after it is 0 with probability 1, so that padding counts for nothing. Learn by `short_run_mle`, whose chains need no
guide; `variational_joint` makes it a variational autoencoder, and `is_plain` a language model without z.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pplebm.errors import PplebmError
from pplebm.gallery.hyper import Count, Positive, Whole
from pplebm.gallery.paper import Paper
from pplebm.networks.layers import Dense, Embedding, Net, Recurrent, mlp
from pplebm.networks.strings import Reader, Strings

PAPER = Paper("Bo Pang and Erik Nijkamp and Tian Han and Ying Nian Wu",
              "Generative Text Modeling through Short Run Inference", 2021, "EACL", arxiv="2106.02513")  # fmt: skip
RESULT = "words: 3.48 bits a character, a language model 3.49, learned longer 3.18, by short_run_mle (models/README.md)"
CHECK = "tests/gallery/test_text_decoder.py::test_the_bound_tightens_to_the_logarithm_of_the_quadrature"
DEVIATIONS = (
    "Strings are read character by character; the paper reads words.",
    "A gated recurrent unit, or a causal transformer, takes the place of the LSTM, and z does not set its first state.",
    "Chains run as the algorithm says: without a schedule of steps, a noise of less than one, or dropout inside.",
    "A tilt can stand beside, bounded by b·tanh(f/b); the paper has none.",
)
BACKENDS = ("pyro", "numpyro")
SCALING = "none"  # integers are names of characters


class Hyper(NamedTuple):
    symbols: Count = 32  # the end among them; as `encoded` counts them
    latent_dim: Count = 8  # short strings have no use for the paper's 32
    units: Count = 64  # of decoder and guide, for thousands of short strings; the paper has 256 for words
    reader: Reader = "recurrent"  # "attention": a causal transformer of two heads, for an even number of units
    depth: Count = 1  # as the paper
    is_plain: bool = False  # True: the language model that z tells nothing, to compare with
    tilted: bool = False  # as the paper; True: p(z) is tilted
    tilt_width: Count = 64  # hidden units of the tilt
    tilt_depth: Whole = 2  # its hidden layers, as in latent_ebm
    tilt_bound: Positive = 8.0  # nats, as in latent_ebm


def nets(hyper: Hyper, shape: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """The law of strings given z, and the tilt."""
    h, size = hyper, 0 if hyper.is_plain else hyper.latent_dim
    out: dict[str, Any] = {"decoder": Strings(size, shape["text"][0], h.symbols, h.units, h.reader, h.depth)}
    tilt = mlp(h.latent_dim, 1, h.tilt_width, h.tilt_depth, "leaky_relu")
    return out | ({"tilt": tilt} if h.tilted else {})


def model(ppl: Any, net: Any, hyper: Hyper, text: Any = None) -> Any:
    """Declare z, the tilt, and strings of integers, (B, T)."""
    with ppl.plate("data", len(text)):
        z = ppl.sample("z1", ppl.dist.Normal(0.0, 1.0).expand([hyper.latent_dim]).to_event(1))
        if hyper.tilted:
            ppl.tilt("f", net["tilt"](z)[..., 0], bound=hyper.tilt_bound)
        return ppl.sample("text", net["decoder"](z[..., :0] if hyper.is_plain else z), obs=text)


def guide_nets(hyper: Hyper, shape: dict[str, tuple[int, ...]]) -> dict[str, Net]:
    """An encoder that reads the characters."""
    layers = (Embedding(hyper.symbols, hyper.units), Recurrent(hyper.units), Dense(2 * hyper.latent_dim))
    return {"encoder": Net(shape["text"], layers)}


def guide(ppl: Any, net: Any, hyper: Hyper, text: Any = None) -> None:
    """Declare z given strings."""
    with ppl.plate("data", len(text)):
        h = net["encoder"](text)
        mean, scale = h[..., : hyper.latent_dim], ppl.softplus(h[..., hyper.latent_dim :]) + 0.01
        ppl.sample("z1", ppl.dist.Normal(mean, scale).to_event(1))


def encoded(strings: Sequence[str], alphabet: str, length: int) -> dict[str, np.ndarray]:
    """Strings as data of `model`: character k of the alphabet is k + 1, and 0 fills up to `length`."""
    number = {character: k for k, character in enumerate(alphabet, start=1)}
    wrong = sorted({c for s in strings for c in s} - set(number))
    if wrong or max(map(len, strings)) > length:
        raise PplebmError(f"strings must have at most {length} characters, of '{alphabet}'; found also {wrong}.")
    return {"text": np.array([[number[c] for c in s] + [0] * (length - len(s)) for s in strings])}


def decoded(text: Any, alphabet: str) -> list[str]:
    """Strings of data."""
    return ["".join(alphabet[int(k) - 1] for k in row if k) for row in np.asarray(text)]
