"""Networks as data: every layer against an independent computation, and both backends against each other."""

from __future__ import annotations

import importlib
from typing import get_args

import numpy as np
import pytest
import torch

import pplebm
from pplebm.errors import PplebmError
from pplebm.networks import blocks, decoders, encoders
from pplebm.networks import layers as nets
from pplebm.networks.layers import ChannelsFirst, ChannelsLast, Conv, ConvTransposed, Dense, Net, Reshape
from pplebm.ppl.language import load_backend

jax = pytest.importorskip("jax")

CASES = {
    "dense": Net(3, (Dense(5, "silu"), Dense(2))),
    "first layer on a pixel": Net(3, (Reshape((1, 1, 3)), ConvTransposed(2, (4, 3), activation="leaky_relu"))),
    "a pixel with padding": Net((1, 1, 3), (ConvTransposed(2, (4, 3), 2, 1),)),
    "transposed, stride 1": Net((4, 3, 2), (ConvTransposed(3, (3, 2), 1, 1, "tanh"),)),
    "transposed, stride 2": Net((4, 3, 2), (ConvTransposed(3, (4, 3), 2, 1),)),
    "transposed, stride 3": Net((2, 5, 2), (ConvTransposed(1, (5, 4), 3, 0, "gelu"),)),
    "convolution": Net((5, 7, 2), (Conv(3, (3, 2), 1, 1, "leaky_relu"),)),
    "convolution, stride 2": Net((5, 8, 2), (Conv(3, (3, 4), 2, 1),)),
    "channels": Net((3, 4, 5), (ChannelsLast(), Conv(2, (3, 3), 1, 1), ChannelsFirst())),
    "decoder": decoders.conv_decoder(3, (7, 10), width=3),
    "decoder in colour": decoders.conv_decoder(2, (3, 8, 8), width=2, last="tanh"),
    "decoder, channels last": decoders.conv_decoder(2, (8, 5, 3), width=2),
    "encoder, channels last": encoders.conv_encoder((9, 6, 2), 4, width=3),
    "series": encoders.series_encoder((13, 2), 4, width=3),
    "series decoder": decoders.series_decoder(3, (21, 2), width=2),
    "short series decoder": decoders.series_decoder(3, (5, 2), width=2),
    "recurrent": encoders.recurrent_encoder((6, 2), 4, width=3),
    "encoder": encoders.conv_encoder((2, 9, 6), 4, width=3),
    "all states": Net((6, 2), (nets.Recurrent(3, all_states=True),)),
    "embedding": Net((5,), (nets.Embedding(7, 3),)),
    "convolution in time": Net((6, 2), (nets.SequenceConv(3, 3, False, 2, "silu"),)),
    "causal convolution": Net((6, 2), (nets.SequenceConv(3, 2),)),
    "transformer": Net((5,), (nets.Embedding(7, 4), nets.Positions(), *blocks.transformer_block(4, 2, 6))),
    "attention to all": Net((5, 4), blocks.transformer_block(4, causal=False)),
    "U-Net": blocks.unet(8, 2, width=3, levels=2),
}


@pytest.fixture(autouse=True)
def double(float64):
    with jax.enable_x64(True):
        yield


def weights_of(net, seed=0):
    return nets.initial_weights(net, np.random.default_rng(seed))


def inputs_of(net, *lead):
    shape, rng = (*lead, *nets.shapes(net)[0]), np.random.default_rng(1)
    first = net.layers[0]
    return rng.integers(first.symbols, size=shape) if isinstance(first, nets.Embedding) else rng.normal(size=shape)


def applied(ppl, net, weights, a):
    layers = importlib.import_module(f"pplebm.backends.{ppl.name}.layers")
    return layers.apply(net, {n: ppl.asarray(w) for n, w in weights.items()}, ppl.asarray(a))


def test_a_backend_has_a_function_for_every_layer_type(ppl):
    layers = importlib.import_module(f"pplebm.backends.{ppl.name}.layers")
    assert set(layers.APPLY) == set(get_args(nets.Layer))


def test_the_recurrent_layer_is_the_cell_of_torch_step_by_step(ppl):
    net = Net((7, 2), (nets.Recurrent(3),))
    weights, a = weights_of(net), inputs_of(net, 4)
    cell = torch.nn.GRUCell(2, 3)
    with torch.no_grad():
        cell.weight_ih.copy_(torch.as_tensor(weights["weight_0"][:, :2]))
        cell.weight_hh.copy_(torch.as_tensor(weights["weight_0"][:, 2:]))
        cell.bias_ih.copy_(torch.as_tensor(weights["bias_0"]))
        cell.bias_hh.zero_()
        h = torch.zeros(4, 3)
        for t in range(7):
            h = cell(torch.as_tensor(a[:, t]), h)
    np.testing.assert_allclose(ppl.to_numpy(applied(ppl, net, weights, a)), h.numpy(), rtol=1e-12)


def by_loops(layer, a, weight, bias):
    """One convolution of one image (H, W, C), written out."""
    height, width = nets.shapes(Net(a.shape, (layer,)))[1][:2]
    out = np.tile(bias, (height, width, 1)).astype(float)
    transposed, s, p = isinstance(layer, ConvTransposed), layer.stride, layer.padding
    for y, x, ky, kx in np.ndindex(*a.shape[:2], *layer.kernel):
        if transposed:  # this pixel is painted onto the output
            at = (y * s + ky - p, x * s + kx - p)
            if 0 <= at[0] < height and 0 <= at[1] < width:
                out[at] += a[y, x] @ weight[:, :, ky, kx]
        else:  # this pixel is seen by the output pixel whose window it stands in
            (v, r), (u, q) = divmod(y + p - ky, s), divmod(x + p - kx, s)
            if r == q == 0 and 0 <= v < height and 0 <= u < width:
                out[v, u] += weight[:, :, ky, kx] @ a[y, x]
    return out


@pytest.mark.parametrize("name", [n for n in CASES if isinstance(CASES[n].layers[-1], (Conv, ConvTransposed))])
def test_a_convolution_is_the_sum_it_stands_for(ppl, name):
    net = CASES[name]._replace(layers=CASES[name].layers[-1:], inputs=nets.shapes(CASES[name])[-2])
    net = net._replace(layers=(net.layers[0]._replace(activation="linear"),))
    weights, a = weights_of(net), inputs_of(net, 2)
    expected = [by_loops(net.layers[0], image, weights["weight_0"], weights["bias_0"]) for image in a]
    np.testing.assert_allclose(ppl.to_numpy(applied(ppl, net, weights, a)), expected, atol=1e-12)


@pytest.mark.parametrize("lead", [(), (2,), (3, 2)])
@pytest.mark.parametrize("name", CASES)
def test_shapes_are_as_declared_and_leading_axes_are_free(ppl, name, lead):
    net = CASES[name]
    weights, a = weights_of(net), inputs_of(net, *lead)
    out = ppl.to_numpy(applied(ppl, net, weights, a))
    assert out.shape == (*lead, *nets.shapes(net)[-1])
    flat = a.reshape(-1, *nets.shapes(net)[0])
    alone = np.stack([ppl.to_numpy(applied(ppl, net, weights, one[None]))[0] for one in flat])
    np.testing.assert_allclose(out.reshape(alone.shape), alone, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_both_backends_agree_in_values_and_gradients(name):
    net, found = CASES[name], []
    target = np.random.default_rng(2).normal(size=(2, *nets.shapes(net)[-1]))
    for backend in ("pyro", "numpyro"):
        ppl = importlib.import_module(f"pplebm.backends.{backend}")
        a = ppl.asarray(inputs_of(net, 2))
        has_slope = not isinstance(net.layers[0], nets.Embedding)  # there is none in symbols
        tree = {n: ppl.asarray(w) for n, w in weights_of(net).items()} | ({"a": a} if has_slope else {})
        layers = importlib.import_module(f"pplebm.backends.{backend}.layers")

        def loss(tree, ppl=ppl, layers=layers, a=a):
            return (layers.apply(net, tree, tree.get("a", a)) * ppl.asarray(target)).sum()

        value, gradient = ppl.value_and_grad(loss, tree)
        found.append({n: ppl.to_numpy(g) for n, g in gradient.items()} | {"value": ppl.to_numpy(value)})
    for n, a in found[0].items():
        np.testing.assert_allclose(a, found[1][n], rtol=1e-12, atol=1e-12, err_msg=n)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_gradient_of_our_own_is_the_derived_one(stride, padding):
    from pplebm.backends.numpyro import layers, transposed

    rng = np.random.default_rng(0)
    a, weight = rng.normal(size=(2, 3, 4, 2)), rng.normal(size=(2, 3, 4, 3))
    out, derived = jax.vjp(lambda a, w: transposed.spread(a, w, stride, padding), a, weight)
    same, own = jax.vjp(lambda a, w: layers._transposed(a, w, stride, padding), a, weight)
    gradient = rng.normal(size=out.shape)
    np.testing.assert_allclose(out, same, atol=1e-13)
    for x, y in zip(derived(gradient), own(gradient), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-12)


def test_our_gradient_can_be_differentiated_again():
    from pplebm.backends.numpyro import layers, transposed

    rng = np.random.default_rng(0)
    a, weight = rng.normal(size=(2, 3, 4, 2)), rng.normal(size=(2, 3, 4, 3))

    def slope(f):
        return jax.grad(lambda a: (jax.grad(lambda a: (f(a, weight, 2, 1) ** 3).sum())(a) ** 2).sum())(a)

    np.testing.assert_allclose(slope(layers._transposed), slope(transposed.spread), rtol=1e-10)


@pytest.mark.parametrize(
    "shape", [(4, 4), (8, 8), (28, 28), (3, 32, 32), (1, 64, 64), (5, 30), (4, 40), (32, 32, 3), (9, 4, 1)]
)
def test_decoders_and_encoders_reach_every_shape(shape):
    assert nets.shapes(decoders.conv_decoder(5, shape, width=2))[-1] == shape
    assert nets.shapes(encoders.conv_encoder(shape, 6, width=2))[-1] == (6,)


def test_an_image_with_channels_last_is_the_same_image(ppl):
    """With the same weights, a layer later where the channels come first and are moved before."""
    first, last = (3, 8, 6), (8, 6, 3)
    decode, encode = decoders.conv_decoder(4, first, width=2), encoders.conv_encoder(first, 5, width=2)
    weights, z = weights_of(decode), inputs_of(decode, 2)
    x = ppl.to_numpy(applied(ppl, decode, weights, z))
    moved = ppl.to_numpy(applied(ppl, decoders.conv_decoder(4, last, width=2), weights, z))
    np.testing.assert_allclose(np.moveaxis(moved, -1, -3), x, atol=1e-12)
    weights = weights_of(encode)
    earlier = {f"{name}_{int(n) - 1}": a for key, a in weights.items() for name, n in [key.split("_")]}
    features = applied(ppl, encoders.conv_encoder(last, 5, width=2), earlier, moved)
    np.testing.assert_allclose(ppl.to_numpy(features), ppl.to_numpy(applied(ppl, encode, weights, x)), atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_initial_outputs_have_unit_order(name):
    """Fan in is counted right where inputs of variance one come out with a variance of about a third."""
    net = CASES[name]._replace(layers=tuple(_linear(layer) for layer in CASES[name].layers))
    out = [applied(load_backend("pyro"), net, weights_of(net, seed), inputs_of(net, 5)) for seed in range(20)]
    shrinks = lambda layer: hasattr(layer, "activation") + 2 * isinstance(layer, nets.Recurrent)  # from the state 0
    depth = sum(map(shrinks, _flat(net.layers)))
    assert (1 / 3) ** depth / 3 < float(torch.stack(out).var()) < 3.0


def test_fan_in_is_the_number_of_terms_in_an_output():
    assert Dense(7).weights((5,)).fan_in == 5
    assert Conv(7, (3, 2)).weights((8, 8, 4)).fan_in == 4 * 3 * 2
    assert ConvTransposed(7, (4, 4), stride=2, padding=1).weights((8, 8, 3)).fan_in == 3 * 2 * 2
    assert ConvTransposed(7, (4, 4)).weights((1, 1, 3)).fan_in == 3


def _flat(layers):
    inner = [_flat(getattr(layer, "layers", ())) for layer in layers]
    return [layer for one, more in zip(layers, inner, strict=True) for layer in (one, *more)]


def _linear(layer):
    if hasattr(layer, "layers"):
        return layer._replace(layers=tuple(map(_linear, layer.layers)))
    return layer._replace(activation="linear") if hasattr(layer, "activation") else layer


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: nets.shapes(Net((2, 3), (Dense(4),))), r"layer 0, Dense.* vector and got shape \(2, 3\).*Reshape"),
        (lambda: nets.shapes(Net(6, (Conv(1, (3, 3)),))), "needs an image"),
        (lambda: nets.shapes(Net(6, (Reshape((4, 2)),))), "numbers of entries differ"),
        (lambda: nets.shapes(Net((2, 2, 1), (Conv(1, (5, 5)),))), "would make -2 x -2 pixels of 2 x 2"),
        (lambda: nets.shapes(Net((2, 2, 1), (Conv(1, (2, 2), 0),))), "stride must be positive"),
        (lambda: decoders.conv_decoder(3, (7,)), r"images of shape \(H, W\)"),
        (lambda: encoders.conv_encoder((3, 2, 8), 3), "sides of 4 or more"),
        (lambda: nets.mlp(3, 2, activation="relu"), "activation 'relu' is not known"),
        (
            lambda: pplebm.bind("joint_ebm", "pyro", shape=(8, 8), decoder="cnn"),
            "'decoder' .* must be one of dense, conv",
        ),
        (lambda: decoders.decoder("cnn", 2, (8, 8), 4, 8, 1, "silu"), "decoder 'cnn' is not known"),
        (lambda: pplebm.bind("joint_ebm", "pyro", shape=(8,), decoder="conv"), "use `mlp`"),
    ],
)
def test_what_does_not_fit_is_refused(build, words):
    with pytest.raises(PplebmError, match=words):
        build()
