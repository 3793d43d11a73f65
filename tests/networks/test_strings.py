"""Laws of strings: all probabilities add up to 1, draws follow them, and both backends have the same."""

from __future__ import annotations

import importlib
import itertools

import numpy as np
import pytest

from pplebm.errors import PplebmError
from pplebm.networks import layers as nets
from pplebm.networks.strings import Strings

jax = pytest.importorskip("jax")
LAWS = {
    "recurrent": Strings(2, 4, 3, 5),
    "attention": Strings(2, 4, 3, 6, "attention"),
    "no vector": Strings(0, 4, 3, 5, depth=2),
}
ALL = np.array(list(itertools.product(range(3), repeat=4)))
ENDED = np.array([(x[np.argmin(x) :] == 0).all() if (x == 0).any() else True for x in ALL])  # 0 from the first 0 on


@pytest.fixture(autouse=True)
def double(float64):
    with jax.enable_x64(True):
        yield


def law_of(ppl, law, z, seed=0):
    """A distribution at weights far from where they begin."""
    rng = np.random.default_rng(seed)
    parts = [{n: 3.0 * w for n, w in nets.initial_weights(net, rng).items()} for net in law.nets()]
    z = ppl.asarray(z[:, : law.latent])
    if ppl.name == "pyro":
        from pplebm.backends.pyro.declare import Network
        from pplebm.backends.pyro.strings import StringsNetwork

        networks = [Network(net, rng) for net in law.nets()]
        for network, weights in zip(networks, parts, strict=True):
            network.load_state_dict({n: ppl.asarray(w) for n, w in weights.items()})
        return StringsNetwork(law, networks)(z)
    from pplebm.backends.numpyro.layers import apply
    from pplebm.backends.numpyro.strings import StringsLaw

    def network(net, weights):
        return lambda a: apply(net, {n: ppl.asarray(w) for n, w in weights.items()}, a)

    return StringsLaw(law, [network(net, w) for net, w in zip(law.nets(), parts, strict=True)], z)


def log_probs(ppl, law, z):
    """Of every string given one vector."""
    one = law_of(ppl, law, np.repeat(z[None], len(ALL), 0))
    return ppl.to_numpy(one.log_prob(ppl.asarray(ALL)))


def by_hand(ppl, law, x, z):
    """The chain rule, one symbol at a time, each from what stands before it alone."""
    total, networks = 0.0, law_of(ppl, law, z[None])
    for t, symbol in enumerate(x):
        if 0 in x[:t]:
            continue
        padded = np.zeros((1, law.length), int)
        padded[0, :t] = x[:t]  # what comes later is not known
        arguments = (ppl.asarray(padded), networks.z) if ppl.name == "pyro" else (ppl.asarray(padded),)
        out = networks.networks.logits(*arguments) if ppl.name == "pyro" else networks.logits(*arguments)
        logits = ppl.to_numpy(out)[0, t]
        total += logits[symbol] - np.log(np.exp(logits).sum())
    return total


Z = np.array([0.7, -1.2])


@pytest.mark.parametrize("name", LAWS)
def test_probabilities_add_up_to_one(ppl, name):
    found = log_probs(ppl, LAWS[name], Z)
    assert np.exp(found).sum() == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_array_equal(np.isfinite(found), ENDED)
    assert 0 < ENDED.sum() < len(ALL) and np.ptp(found[ENDED]) > 2.0


@pytest.mark.parametrize("name", LAWS)
def test_a_string_has_the_probability_of_the_chain_rule(ppl, name):
    found = log_probs(ppl, LAWS[name], Z)
    for i in np.flatnonzero(ENDED)[::3]:
        assert found[i] == pytest.approx(by_hand(ppl, LAWS[name], ALL[i], Z), abs=1e-10)


@pytest.mark.parametrize("name", LAWS)
def test_draws_follow_the_law(ppl, name):
    """Frequencies of all strings, by the chi-square statistic of 4000 draws at 4.5 standard deviations."""
    law = LAWS[name]
    one = law_of(ppl, law, np.repeat(Z[None], 4000, 0))
    if ppl.name == "pyro":
        with ppl.seeded(ppl.key(3)):
            drawn = ppl.to_numpy(one.sample())
    else:
        drawn = ppl.to_numpy(one.sample(ppl.key(3)))
    place = drawn @ 3 ** np.arange(3, -1, -1)
    counts, expected = np.bincount(place, minlength=len(ALL)), 4000 * np.exp(log_probs(ppl, law, Z))
    assert counts[~ENDED].sum() == 0
    often = expected > 5
    statistic = ((counts - expected)[often] ** 2 / expected[often]).sum()
    assert statistic < often.sum() + 4.5 * (2 * often.sum()) ** 0.5


@pytest.mark.parametrize("name", LAWS)
def test_both_backends_agree(name):
    found = [log_probs(importlib.import_module(f"pplebm.backends.{b}"), LAWS[name], Z) for b in ("pyro", "numpyro")]
    np.testing.assert_allclose(found[0], found[1], atol=1e-10)


def test_the_vector_changes_the_law(ppl):
    law = LAWS["recurrent"]
    assert np.abs(log_probs(ppl, law, Z)[ENDED] - log_probs(ppl, law, -Z)[ENDED]).max() > 0.1
    plain = LAWS["no vector"]
    np.testing.assert_array_equal(log_probs(ppl, plain, Z), log_probs(ppl, plain, -Z))


def test_the_support_is_told(ppl):
    one = law_of(ppl, LAWS["recurrent"], np.repeat(Z[None], len(ALL), 0))
    np.testing.assert_array_equal(ppl.to_numpy(one.support(ppl.asarray(ALL)) if ppl.name == "numpyro" else
                                               one.support.check(ppl.asarray(ALL))), ENDED)  # fmt: skip
    for wrong in (3, -1, 0.5):
        x = ppl.asarray(np.array([[1.0, wrong, 0.0, 0.0]]))
        assert not bool((one.support(x) if ppl.name == "numpyro" else one.support.check(x))[0])


def test_a_string_may_have_one_place(ppl):
    law = Strings(2, 1, 3, 5)
    found = ppl.to_numpy(law_of(ppl, law, np.repeat(Z[None], 3, 0)).log_prob(ppl.asarray(np.arange(3)[:, None])))
    assert np.exp(found).sum() == pytest.approx(1.0, abs=1e-12) and np.isfinite(found).all()


def test_a_reader_that_is_not_known_is_refused():
    with pytest.raises(PplebmError, match="'convolution' is not known"):
        Strings(2, 4, 3, 5, "convolution").nets()
