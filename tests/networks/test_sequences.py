"""Layers for sequences: each is torch's own module at the same weights; what is causal sees nothing that is later."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

from pplebm.errors import PplebmError
from pplebm.networks import blocks
from pplebm.networks import layers as nets
from pplebm.networks.layers import (
    Attention,
    Dense,
    Embedding,
    LayerNorm,
    Net,
    Positions,
    Recurrent,
    Residual,
    SequenceConv,
    Skip,
)

jax = pytest.importorskip("jax")
T, C = 6, 4
CAUSAL = {
    "states": (Recurrent(5, all_states=True), Recurrent(3, all_states=True)),
    "convolution": (SequenceConv(5, 3, dilation=2, activation="silu"), SequenceConv(2, 2)),
    "attention": (Attention(2),),
    "transformer": (Positions(), *blocks.transformer_block(C, 2, 7), *blocks.transformer_block(C)),
    "beside": (Skip((SequenceConv(3, 2), LayerNorm())), Residual((SequenceConv(7),))),
}
OTHER = {
    "convolution": (SequenceConv(2, 3, causal=False),),
    "attention": blocks.transformer_block(C, causal=False),
    "U-Net": blocks.unet(T, C, width=3).layers,
}


@pytest.fixture(autouse=True)
def double(float64):
    with jax.enable_x64(True):
        yield


def applied(ppl, layers, a, seed=0):
    """Output of layers for (B, T, C), and their weights."""
    net = Net(a.shape[1:], tuple(layers))
    weights = nets.initial_weights(net, np.random.default_rng(seed))
    apply = importlib.import_module(f"pplebm.backends.{ppl.name}.layers").apply
    return ppl.to_numpy(apply(net, {n: ppl.asarray(w) for n, w in weights.items()}, ppl.asarray(a))), weights


def sequences(seed=1):
    return np.random.default_rng(seed).normal(size=(3, T, C))


def as_torch(module, **weights):
    """Output of a module of torch for the sequences, at these weights."""
    with torch.no_grad():
        for name, a in weights.items():
            module.get_parameter(name).copy_(torch.as_tensor(a))
        return module


@pytest.mark.parametrize("name", CAUSAL)
def test_what_comes_later_changes_nothing_earlier(ppl, name):
    """And what comes now, or earlier, does, at every step: nets that see nothing are causal as well."""
    a = sequences()
    before, _ = applied(ppl, CAUSAL[name], a)
    for t in range(T):
        changed = a.copy()
        changed[:, t] += np.random.default_rng(t).normal(size=(3, C))
        moved = np.abs(applied(ppl, CAUSAL[name], changed)[0] - before).max((0, 2))
        assert (moved[:t] == 0.0).all() and moved[t] > 1e-3
        assert t == T - 1 or moved[t + 1] > 1e-4


@pytest.mark.parametrize("name", OTHER)
def test_what_is_not_causal_sees_what_comes_later(ppl, name):
    a = sequences()
    changed = a.copy()
    changed[:, -1] += np.random.default_rng(0).normal(size=C)
    assert np.abs(applied(ppl, OTHER[name], changed)[0] - applied(ppl, OTHER[name], a)[0])[:, -2].max() > 1e-3


def test_states_are_those_of_torch(ppl):
    a = sequences()
    found, weights = applied(ppl, [Recurrent(5, all_states=True)], a)
    parts = dict(zip(("weight_ih_l0", "weight_hh_l0"), np.split(weights["weight_0"], [C], 1), strict=True))
    biases = {"bias_ih_l0": weights["bias_0"], "bias_hh_l0": 0.0 * weights["bias_0"]}
    own = as_torch(torch.nn.GRU(C, 5, batch_first=True), **parts, **biases)
    np.testing.assert_allclose(found, own(torch.as_tensor(a))[0].detach().numpy(), rtol=1e-10)
    np.testing.assert_allclose(found[:, -1], applied(ppl, [Recurrent(5)], a)[0], rtol=1e-10)


@pytest.mark.parametrize("causal", [True, False])
def test_attention_is_that_of_torch(ppl, causal):
    a = sequences()
    found, weights = applied(ppl, [Attention(2, causal)], a)
    matrix, bias = (np.split(weights[f"{kind}_0"], [3 * C]) for kind in ("weight", "bias"))
    own = torch.nn.MultiheadAttention(C, 2, batch_first=True)
    own = as_torch(own, in_proj_weight=matrix[0], in_proj_bias=bias[0])
    as_torch(own.out_proj, weight=matrix[1], bias=bias[1])
    later = torch.ones(T, T, dtype=torch.bool).triu(1) if causal else None
    x = torch.as_tensor(a)
    np.testing.assert_allclose(found, own(x, x, x, attn_mask=later)[0].detach().numpy(), rtol=1e-10)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_a_convolution_in_time_is_that_of_torch(ppl, kernel, dilation):
    a, around = sequences(), dilation * (kernel - 1)
    found, weights = applied(ppl, [SequenceConv(5, kernel, True, dilation)], a)
    own = torch.nn.Conv1d(C, 5, kernel, padding=around, dilation=dilation)
    own = as_torch(own, weight=weights["weight_0"], bias=weights["bias_0"])
    full = own(torch.as_tensor(a).mT).mT.detach().numpy()
    np.testing.assert_allclose(found, full[:, :T], atol=1e-12)
    centred, _ = applied(ppl, [SequenceConv(5, kernel, False, dilation)], a)
    np.testing.assert_allclose(centred, full[:, around // 2 :][:, :T], atol=1e-12)


def test_a_norm_is_that_of_torch(ppl):
    a = sequences()
    own = torch.nn.LayerNorm(C, elementwise_affine=False)(torch.as_tensor(a)).numpy()
    np.testing.assert_allclose(applied(ppl, [LayerNorm()], a)[0], own, atol=1e-12)


def test_a_block_is_that_of_torch(ppl):
    a = sequences()
    found, weights = applied(ppl, blocks.transformer_block(C, 2, 7), a)
    own = torch.nn.TransformerEncoderLayer(C, 2, 7, 0.0, "gelu", batch_first=True, norm_first=True)
    for kind in ("weight", "bias"):
        inside, outside = np.split(weights[f"{kind}_0_1"], [3 * C])
        as_torch(own.self_attn, **{f"in_proj_{kind}": inside})
        as_torch(own.self_attn.out_proj, **{kind: outside})
        for linear, i in ((own.linear1, 1), (own.linear2, 2)):
            w = weights[f"{kind}_1_{i}"]
            as_torch(linear, **{kind: w[..., 0] if kind == "weight" else w})
    later = torch.ones(T, T, dtype=torch.bool).triu(1)
    np.testing.assert_allclose(found, own(torch.as_tensor(a), later).detach().numpy(), rtol=1e-10)


def test_symbols_are_rows_of_the_weights(ppl):
    symbols = np.random.default_rng(0).integers(7, size=(3, 5))
    net = Net((5,), (Embedding(7, 2),))
    weights = nets.initial_weights(net, np.random.default_rng(0))
    apply = importlib.import_module(f"pplebm.backends.{ppl.name}.layers").apply
    own = torch.nn.Embedding.from_pretrained(torch.as_tensor(weights["weight_0"]))(torch.as_tensor(symbols)).numpy()
    for given in (symbols, symbols.astype(float)):
        found = apply(net, {"weight_0": ppl.asarray(weights["weight_0"])}, ppl.asarray(given))
        np.testing.assert_array_equal(ppl.to_numpy(found), own)


@pytest.mark.parametrize("symbol", [-1, 7])
def test_a_number_that_is_no_symbol_does_not_pass(ppl, symbol):
    net = Net((2,), (Embedding(7, 2),))
    weights = {n: ppl.asarray(w) for n, w in nets.initial_weights(net, np.random.default_rng(0)).items()}
    apply = importlib.import_module(f"pplebm.backends.{ppl.name}.layers").apply
    at = ppl.asarray(np.array([[symbol, 3]]))
    if ppl.name == "pyro":
        with pytest.raises(IndexError):
            apply(net, weights, at)
    else:
        found = ppl.to_numpy(apply(net, weights, at))[0]
        assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (Net((5, 4), (Attention(3),)), "4 channels among 3 heads"),
        (Net((5, 4), (Embedding(3, 2),)), r"strings of symbols \(T,\) and got shape \(5, 4\)"),
        (Net((5,), (Positions(),)), r"needs a sequence \(T, C\)"),
        (Net((5, 4), (SequenceConv(2, 0),)), "kernel 0"),
        (Net((5, 4), (Residual((SequenceConv(2),)),)), r"cannot add shape \(5, 2\).* to the shape \(5, 4\)"),
        (Net((5, 4), (Skip((Recurrent(2),)),)), r"cannot put shape \(2,\).* beside the shape \(5, 4\)"),
        (Net((5, 4), (Dense(2),)), "needs a vector"),
    ],
)
def test_what_does_not_fit_is_refused(net, words):
    with pytest.raises(PplebmError, match=words):
        nets.shapes(net)


def test_a_length_that_cannot_be_halved_is_refused():
    with pytest.raises(PplebmError, match="6 steps cannot be halved 2 times"):
        blocks.unet(6, 2, 3, levels=2)
