"""Run a kernel over a batch of data: one chain per datum, all at once, memory flat in the number of steps."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from pplebm.errors import PplebmError
from pplebm.kernels.ascent import ascent
from pplebm.kernels.batch import choose, squares
from pplebm.kernels.kernel import Info, Kernel, State, Target, value_and_gradient
from pplebm.kernels.schedules import linear
from pplebm.ppl.language import PPL, Array, Data, Key, Latents, Params
from pplebm.ppl.trees import n_rows
from pplebm.program import Program

Init = Literal["normal", "base", "uniform"]
SHORT_RUN_COORDINATES = "noncentered"  # unless an algorithm says otherwise
MAX_STARTS = 20  # starts drawn for a chain before giving up


def start(
    program: Program,
    key: Key,
    params: Params,
    rows: Data | int,
    init: str | Latents = "base",
    given: Data | None = None,
) -> Latents:
    """Where chains start: "normal" for N(0, I), "uniform" in [-2, 2], "base" for ancestral draws, or given latents.

    In noncentered coordinates the two agree, since the base is N(0, I) there.

    Args:
        rows: number of chains; or data, for a chain at every row.
        given: data of a joint program, for a number of chains.

    Raises:
        PplebmError: for an unknown word, or given latents of another batch size.
    """
    n = rows if isinstance(rows, int) else n_rows(rows)
    if isinstance(init, str):
        if init not in get_args(Init):
            raise PplebmError(
                f"init '{init}' is not known; choose one of {', '.join(get_args(Init))}, or give latents."
            )
        if init == "base" and not all(program.has_noncentered.values()):
            return program.draw_start(key, rows, params, given)
        z = program.ppl.normal_like(key, program.zeros(n))
        if init == "uniform":
            other = program.ppl.normal_like(program.ppl.split(key)[0], z)
            return {site: 4.0 * program.ppl.exp(-0.5 * (a**2 + other[site] ** 2)) - 2.0 for site, a in z.items()}
        data = given if isinstance(rows, int) else rows
        return (
            z
            if init == "normal"
            else program.with_coordinates("noncentered").move(params, z, program.coordinates, data)
        )
    for site in program.latents:
        if site.name not in init or len(init[site.name]) != n:
            got = tuple(init[site.name].shape) if site.name in init else "nothing"
            raise PplebmError(f"given start of '{site.name}' is {got}; expected shape {(n, *site.shape)}.")
    return dict(init)


def begin(
    program: Program,
    key: Key,
    params: Params,
    data: Data | None,
    kernel: Kernel,
    n: int,
    init: str | Latents = "base",
    observed: bool | None = None,
) -> State:
    """State of a kernel at the start of n chains, drawn anew where the density or its gradient is not finite.

    Args:
        data: with a row for every chain, or all data of a joint program; None for a prior that reads none.
        observed: False for chains of the prior given covariates.

    Raises:
        PplebmError: if it is not finite at a given start, or nowhere in 20 draws.
    """
    ppl, (word, given) = program.ppl, (init, None) if isinstance(init, str) else ("", init)

    def first(key: Key, params: Params, data: Data | None, given: Latents | None) -> tuple[State, Array]:
        rows = n if data is None or program.has_global_latents else data
        z = start(program, key, params, rows, word if given is None else given, data)
        log_density = program.log_density(params, data, observed)
        value, gradient = value_and_gradient(ppl, log_density, z)
        return kernel.init(ppl, z, log_density), ppl.isfinite(value) & ppl.isfinite(squares(gradient))

    at = program.compiled(("begin", kernel.settings, n, word, data is None, observed), first)
    state, is_finite = at(key, params, data, given)
    z, attempts = state.z, ppl.split(key, MAX_STARTS) if word else []
    for again in attempts:
        if is_finite.all():
            break
        other, found = at(again, params, data, None)
        z, is_finite = choose(ppl, is_finite, z, other.z), is_finite | found
    if not is_finite.all():
        raise PplebmError(
            f"at the start of {int((~is_finite).sum())} of {n} chains the log density of {program!r} or its gradient "
            f"is not finite{f', in {MAX_STARTS} draws' if word else ''}; give init= latents at which it is."
        )
    return state if z is state.z else begin(program, key, params, data, kernel, n, z, observed)


def run(ppl: PPL, key: Key, state: State, log_density: Target, kernel: Kernel, n_steps: int) -> tuple[State, Info]:
    """Run `n_steps` of a kernel on any log density; returns the last state and the infos by step, (n_steps, B) each."""
    step = lambda state, noise: kernel.move(ppl, noise, state, log_density)
    end, infos = ppl.iterate(step, state, ppl.split(key, n_steps), lambda key: kernel.noise(ppl, key, state.z))
    return end, infos


def advance(
    program: Program,
    key: Key,
    state: State,
    params: Params,
    data: Data | None,
    kernel: Kernel,
    n_steps: int,
    observed: bool | None = None,
) -> tuple[State, Info]:
    """Run `n_steps` of a kernel towards p(z|x), or towards the tilted prior without data; returns what `run` does.

    With data and `observed=False` the target is the prior given their covariates. The program's own loop is used: one
    step as a graph, compiled or not as `program.options` says.
    """
    return program.chain(kernel, state, program.ppl.split(key, n_steps), params, data, observed)


def record(
    program: Program,
    key: Key,
    state: State,
    params: Params,
    data: Data | None,
    kernel: Kernel,
    n_steps: int,
    every: int = 1,
) -> tuple[State, list[Latents]]:
    """Run a kernel towards the tilted prior and keep the latents every so many steps, the start included.

    Args:
        data: with a row for every chain, where the prior reads covariates; None otherwise.
    """
    piece = program.ppl.compiled(lambda state, keys, params, data: program.chain(
        kernel, state, keys, params, data, False)[0])  # fmt: skip
    kept, keys = [state.z], program.ppl.split(key, n_steps)
    for i in range(0, n_steps, every):
        state = piece(state, keys[i : i + every], params, data)
        if i + every <= n_steps:
            kept.append(state.z)
    return state, kept


class RunInfo(NamedTuple):
    """Figures of a batch of short runs: shares, scalars."""

    divergent: Array  # of the chains: with a non-finite step
    accepted: Array  # of the steps: mean acceptance, 1 for kernels that are not adjusted


def short_run(
    program: Program,
    key: Key,
    params: Params,
    rows: Data | int,
    kernel: Kernel,
    n_steps: int,
    *,
    observed: bool = True,
    init: str | Latents = "normal",
    coordinates: str = SHORT_RUN_COORDINATES,
) -> tuple[Latents, RunInfo]:
    """Fresh chains of fixed length: towards p(z|x) of every row of data, or towards the tilted prior.

    Args:
        program: the tilted program.
        rows: data, with a row for every chain; or a number of chains of the prior, where it reads no covariates.
        kernel: made by a function of `pplebm.kernels`.
        n_steps: length of the chains.
        observed: False for chains of the prior, given the covariates of the rows.
        init: see `start`.
        coordinates: in which the chains move.

    Returns:
        The last latents, in centered coordinates and cut off from the gradient, and how the chains ran.

    Example:
        >>> import torch, pplebm
        >>> from pplebm.kernels.langevin import langevin
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> kernel = langevin(0.4)
        >>> positive, _ = short_run(program, 0, program.params, torch.ones(5, 3), kernel, 30)
        >>> negative, info = short_run(program, 1, program.params, 7, kernel, 30)
        >>> positive["z1"].shape, negative["z1"].shape, float(info.divergent)
        (torch.Size([5, 3]), torch.Size([7, 3]), 0.0)
    """
    ppl, moving = program.ppl, program.with_coordinates(coordinates)
    count, data = (rows, None) if isinstance(rows, int) else (n_rows(rows), rows)
    observed = observed and data is not None
    k_start, k_run = ppl.split(key)
    z = start(moving, k_start, params, rows, init)
    state = kernel.init(ppl, z, moving.log_density(params, data, observed))
    with ppl.threads_for(program.work(count)):
        state, info = advance(moving, k_run, state, params, data, kernel, n_steps, observed)
    z = ppl.stop_gradient(moving.move(params, state.z, "centered", data))
    return z, run_info(state, info)


def run_info(state: State, info: Info) -> RunInfo:
    """Figures of chains that ended in a state, with those of their steps."""
    accepted = getattr(info, "accept_prob", 1.0 + 0.0 * info.log_density)
    return RunInfo((state.n_divergent > 0).sum() / len(state.n_divergent), accepted.mean())


def go_on(
    program: Program,
    key: Key,
    params: Params,
    rows: Data | int,
    kernel: Kernel,
    n_steps: int,
    z: Latents,
    log_factor: Array,
    observed: bool,
) -> tuple[Latents, Array, RunInfo]:
    """Chains that go on from latents in the program's coordinates, (B, *event), each with a step size of its own.

    Args:
        log_factor: (B,) logarithm of each chain's step size over the kernel's; of no use to kernels without one.

    Returns:
        The last latents, cut off from the gradient, mean acceptance by chain, 1 where steps are not adjusted, and
        how the chains ran.
    """
    ppl, data = program.ppl, None if isinstance(rows, int) else rows
    observed = observed and data is not None
    state = kernel.init(ppl, z, program.log_density(params, data, observed))
    if kernel.tuning is not None:
        state = state._replace(step_size=state.step_size * ppl.exp(log_factor))
    with ppl.threads_for(program.work(len(log_factor))):
        state, info = advance(program, key, state, params, data, kernel, n_steps, observed)
    accepted = getattr(info, "accept_prob", 1.0 + 0.0 * info.log_density).mean(0)
    return ppl.stop_gradient(dict(state.z)), accepted, run_info(state, info)


def warm_start(
    program: Program,
    key: Key,
    params: Params,
    data: Data,
    n: int | None = None,
    init: str | Latents = "base",
    n_steps: int = 500,
    learning_rate: float = 0.1,
) -> Latents:
    """Latents near a mode of the posterior, by Adam: a start for chains that would be long under way.

    Args:
        program: its own coordinates are used.
        data: with a row for every chain, unless the program is joint.
        n: number of chains; that of the data if left out.
        init: where the ascent starts, see `start`.
        n_steps: of the ascent; its rate falls to a hundredth over them, linearly.
        learning_rate: about the length of a first step in every coordinate; n_steps times half of it must reach the
            mode.

    Example:
        >>> import torch, pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> z = warm_start(program, 0, program.params, torch.ones(4, 3))
        >>> gradient = program.ppl.value_and_grad(program.log_density(program.params, torch.ones(4, 3)), z)[1]
        >>> max(float(g.abs().max()) for g in gradient.values()) < 1e-3
        True
    """
    kernel = ascent(linear(learning_rate, 0.01 * learning_rate, n_steps))
    state = begin(program, key, params, data, kernel, n or n_rows(data), init)
    with program.ppl.threads_for(program.work(n_rows(data))):
        end, _ = advance(program, key, state, params, data, kernel, n_steps)
    last: Latents = end.last
    return last
