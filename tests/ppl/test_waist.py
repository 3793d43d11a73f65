"""Laws of the narrow waist, one per name, for every backend."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

from pplebm.ppl.language import PPL


def test_every_name_is_there_and_nothing_more(ppl):
    wanted = {n for n, v in vars(PPL).items() if callable(v) and not n.startswith("_")} | {"dist", "name"}
    have = {n for n in vars(ppl) if not n.startswith("_") and not inspect.ismodule(getattr(ppl, n))} | {"dist"}
    assert wanted == have - {"annotations"}
    assert len(wanted) <= 34  # a third framework starts where this grows


def test_parameter_names_agree_with_the_protocol(ppl):
    for name, declared in vars(PPL).items():
        if callable(declared) and not name.startswith("_") and name not in ("sample", "plate", "exp", "where"):
            expected = list(inspect.signature(declared).parameters)[1:]
            try:
                got = list(inspect.signature(getattr(ppl, name)).parameters)
            except ValueError:
                continue  # a builtin of the host
            if name not in ("isfinite", "softplus"):  # the host's own names
                assert got[: len(expected)] == expected, name


def test_split_gives_independent_keys_and_repeats(ppl):
    keys = ppl.split(ppl.key(3), 4)
    assert [str(k) for k in keys] == [str(k) for k in ppl.split(ppl.key(3), 4)]
    assert len({str(k) for k in keys}) == 4


def test_normal_like_is_standard_normal_and_repeats(ppl):
    tree = {"a": ppl.asarray(np.zeros((400, 50))), "b": ppl.asarray(np.zeros(3))}
    first, again = ppl.normal_like(ppl.key(1), tree), ppl.normal_like(ppl.key(1), tree)
    a = ppl.to_numpy(first["a"])
    assert (a == ppl.to_numpy(again["a"])).all() and first["b"].shape == (3,)
    assert abs(a.mean()) < 5 / np.sqrt(a.size) and abs(a.var() - 1) < 5 * np.sqrt(2 / a.size)


def test_keys_come_from_numbers_of_numpy_as_well_and_from_several_at_once(ppl):
    like = {"e": ppl.asarray(np.zeros(2))}
    draw = lambda key: ppl.to_numpy(ppl.normal_like(key, like)["e"])
    assert (draw(ppl.key(np.int64(3))) == draw(ppl.key(3))).all()
    several = ppl.key([3, 2**40 + 5])
    for i, seed in enumerate((3, 2**40 + 5)):
        assert (draw(several[i]) == draw(ppl.key(seed))).all()


def test_repeat_runs_as_many_steps_as_are_asked_for_and_ends_after_one_that_is_not_good(ppl):
    def step(total, given):
        total = total + given["a"] * ppl.normal_like(given["key"], {"e": given["a"]})["e"]
        return total, {"total": total}, ~(given["bad"] > 0.5)

    bad = np.array([0.0, 0.0, 0.0, 1.0, 0.0])
    inputs = {"a": ppl.asarray(np.arange(5.0)), "bad": ppl.asarray(bad), "key": ppl.key([3, 4, 5, 6, 7])}
    run, start = ppl.repeat(step), ppl.asarray(1.5)
    one = [float(ppl.normal_like(ppl.key(k), {"e": start})["e"]) for k in (3, 4, 5, 6, 7)]
    for n, done in ((1, 1), (3, 3), (5, 4)):
        total, outs, n_done = run(start, inputs, n)
        expected = 1.5 + np.cumsum(np.arange(5.0) * one)
        np.testing.assert_allclose(ppl.to_numpy(outs["total"])[:done], expected[:done], rtol=1e-5, atol=1e-6)
        assert n_done == done and float(total) == ppl.to_numpy(outs["total"])[done - 1]


def test_value_and_grad_per_datum_and_with_aux(ppl):
    z = {"u": ppl.asarray(np.array([[1.0, 2.0], [3.0, 4.0]])), "unused": ppl.asarray(np.zeros((2, 1)))}
    value, gradient = ppl.value_and_grad(lambda z: (z["u"] ** 3).sum(-1), z)
    np.testing.assert_allclose(ppl.to_numpy(value), [9, 91])
    np.testing.assert_allclose(ppl.to_numpy(gradient["u"]), [[3, 12], [27, 48]])
    np.testing.assert_allclose(ppl.to_numpy(gradient["unused"]), 0)
    (value, aux), _ = ppl.value_and_grad(lambda z: (z["u"].sum(), (z["u"] * 2,)), z, has_aux=True)
    assert float(value) == 10 and ppl.to_numpy(aux[0])[1, 1] == 8


def test_value_and_grad_of_a_constant_is_zero(ppl):
    _, gradient = ppl.value_and_grad(lambda z: ppl.asarray(np.ones(2)), {"u": ppl.asarray(np.ones(2))})
    assert (ppl.to_numpy(gradient["u"]) == 0).all()


def test_a_differentiable_gradient_can_be_differentiated_again(ppl):
    """Third powers: 3 u², and 6 u; where the function is a constant or linear, zero."""
    z = {"u": ppl.asarray(np.array([1.0, 2.0]))}
    for power, once, twice in ((3, [3, 12], [6, 12]), (1, [1, 1], [0, 0]), (0, [0, 0], [0, 0])):
        gradient = lambda z, p=power: ppl.value_and_grad(lambda z: z["u"] ** p, z, differentiable=True)[1]["u"]
        value, bend = ppl.value_and_grad(gradient, z)
        np.testing.assert_allclose(ppl.to_numpy(value), once)
        np.testing.assert_allclose(ppl.to_numpy(bend["u"]), twice)


def test_stop_gradient(ppl):
    z = {"u": ppl.asarray(np.ones(2))}
    _, gradient = ppl.value_and_grad(lambda z: z["u"] * ppl.stop_gradient(z)["u"] ** 2, z)
    np.testing.assert_allclose(ppl.to_numpy(gradient["u"]), 1)


@pytest.mark.parametrize("n", [3, 100, 250])
def test_iterate_stacks_by_step_and_draws_by_key(ppl, n):
    """On both sides of the length at which random numbers are drawn in blocks."""
    zero = {"a": ppl.asarray(np.zeros(2))}
    keys = ppl.split(ppl.key(0), n)
    total, steps = ppl.iterate(lambda s, d: (s + d["a"], (s, d)), zero["a"], keys, lambda k: ppl.normal_like(k, zero))
    drawn = np.stack([ppl.to_numpy(ppl.normal_like(k, zero)["a"]) for k in keys])
    np.testing.assert_allclose(ppl.to_numpy(steps[1]["a"]), drawn, rtol=1e-6)
    np.testing.assert_allclose(ppl.to_numpy(total), drawn.sum(0), atol=1e-4)
    np.testing.assert_allclose(ppl.to_numpy(steps[0])[1:], drawn.cumsum(0)[:-1], atol=1e-4)


def test_iterate_over_a_number_of_steps_gives_them_nothing(ppl):
    double = lambda a, given: (2.0 * a, None if given is None else a)
    end, outs = ppl.iterate(double, ppl.asarray(np.ones(2)), 5)
    assert ppl.to_numpy(end).tolist() == [32.0, 32.0] and outs is None


def test_iterate_takes_an_array_as_number_of_steps_also_where_it_is_traced(ppl):
    """The same function for every number; nothing is stacked."""
    double = lambda a, given: ({"a": 2.0 * a["a"]}, a if given is None else None)
    run = ppl.compiled(lambda state, n: ppl.iterate(double, state, n.max())[0])
    for n in (0, 1, 5):
        counts = ppl.asarray(np.array([0.0, n]))
        start = {"a": ppl.asarray(np.ones(2))}
        assert ppl.to_numpy(run(start, counts)["a"]).tolist() == [2.0**n] * 2
        end, outs = ppl.iterate(double, start, counts.max())
        assert ppl.to_numpy(end["a"]).tolist() == [2.0**n] * 2 and outs is None


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat_and_stack_are_numpys(ppl, axis):
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(3, 3)) for _ in range(3)]
    wide = [rng.normal(size=np.where(np.arange(2) == axis % 2, n, 3)) for n in (1, 2)]
    for found, expected in (
        (ppl.concat([ppl.asarray(a) for a in wide], axis), np.concatenate(wide, axis)),
        (ppl.stack([ppl.asarray(a) for a in parts], axis), np.stack(parts, axis)),
    ):
        np.testing.assert_allclose(ppl.to_numpy(found), expected, rtol=1e-6)


def test_take_is_constant_or_scheduled(ppl):
    schedule = ppl.asarray([0.3, 0.2, 0.1])
    assert ppl.take(0.5, 7) == 0.5
    np.testing.assert_allclose([float(ppl.take(schedule, t)) for t in (0, 2, 9)], [0.3, 0.1, 0.1])


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9)])
def test_adam_is_the_published_update(ppl, betas):
    """Kingma & Ba (2015), algorithm 1, with a rate per parameter; the arrays given are not changed."""
    params = {"a": ppl.asarray(np.array([1.0, -2.0])), "b": ppl.asarray(np.array(0.5))}
    rule = ppl.optimizer("adam", betas=betas)
    state, rates = rule.init(params), {"a": 0.1, "b": 0.01}
    reference = {n: np.array(ppl.to_numpy(p), dtype=float) for n, p in params.items()}
    mean, square = ({n: np.zeros_like(p) for n, p in reference.items()} for _ in range(2))
    for t in range(1, 4):
        gradients = {n: ppl.asarray(np.full(p.shape, 0.3 * t) * (1 + p)) for n, p in reference.items()}
        kept = {n: ppl.to_numpy(p) for n, p in params.items()}
        new, state = rule.update(params, gradients, state, rates)
        for n, g in gradients.items():
            np.testing.assert_array_equal(ppl.to_numpy(params[n]), kept[n])
            g = ppl.to_numpy(g)
            mean[n] = betas[0] * mean[n] + (1 - betas[0]) * g
            square[n] = betas[1] * square[n] + (1 - betas[1]) * g**2
            corrected = np.sqrt(square[n] / (1 - betas[1] ** t)) + 1e-8
            reference[n] = reference[n] - rates[n] * mean[n] / (1 - betas[0] ** t) / corrected
            np.testing.assert_allclose(ppl.to_numpy(new[n]), reference[n], rtol=1e-5)
        params = new


def test_arrays(ppl):
    a = ppl.asarray(np.array([[1.0, np.inf], [np.nan, -1.0]]))
    assert ppl.to_numpy(ppl.isfinite(a)).tolist() == [[True, False], [False, True]]
    chosen = ppl.where(ppl.isfinite(a), a, 0.0 * ppl.asarray(np.ones((2, 2))))
    np.testing.assert_allclose(ppl.to_numpy(chosen), [[1, 0], [0, -1]])
    b = ppl.asarray(np.array([0.0, 1.0]))
    np.testing.assert_allclose(ppl.to_numpy(ppl.exp(b)), np.exp([0, 1]), rtol=1e-6)
    np.testing.assert_allclose(ppl.to_numpy(ppl.softplus(b)), np.log1p(np.exp([0, 1])), rtol=1e-6)


@pytest.mark.parametrize("n", [1, 4, 5])
def test_median_is_numpys(ppl, n):
    a = np.random.default_rng(n).normal(size=(2, n, 3))
    np.testing.assert_allclose(ppl.to_numpy(ppl.median(ppl.asarray(a), 1)), np.median(a, 1), rtol=1e-6)


def test_logsumexp_and_log_abs_det_are_numpys(ppl):
    a = np.random.default_rng(0).normal(size=(4, 3, 3))
    np.testing.assert_allclose(ppl.to_numpy(ppl.logsumexp(ppl.asarray(a), 0)), np.log(np.exp(a).sum(0)), rtol=1e-5)
    np.testing.assert_allclose(
        ppl.to_numpy(ppl.log_abs_det(ppl.asarray(a))), np.log(np.abs(np.linalg.det(a))), rtol=1e-3, atol=1e-5
    )


def test_seeded_repeats_the_hosts_draws_and_leaves_no_trace(ppl):
    def draw(seed):
        with ppl.seeded(ppl.key(seed)):
            return ppl.to_numpy(ppl.sample("z", ppl.dist.Normal(0.0, 1.0).expand([3])))

    assert (draw(1) == draw(1)).all() and (draw(1) != draw(2)).any()


def test_threads_are_as_before_afterwards(ppl):
    before = torch.get_num_threads()
    with pytest.raises(ValueError), ppl.threads_for(10):
        assert torch.get_num_threads() == (1 if ppl.name == "pyro" else before)
        raise ValueError
    assert torch.get_num_threads() == before
    with ppl.threads_for(10**12):
        assert torch.get_num_threads() == before


def test_keys_take_large_seeds(ppl):
    keys = ppl.split(ppl.key(2**63 - 1), 100)
    assert ppl.normal_like(keys[99], {"a": ppl.asarray(np.zeros(2))})["a"].shape == (2,)


def test_compiled_functions_give_the_same(ppl):
    double = ppl.compiled(lambda tree: {"a": 2.0 * tree["a"]})
    assert ppl.to_numpy(double({"a": ppl.asarray(np.ones(2))})["a"]).tolist() == [2.0, 2.0]
