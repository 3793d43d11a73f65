"""A finished or unfinished run, opened from its folder: samples, reconstructions, scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pplebm import folder as files
from pplebm import gallery, train
from pplebm.data import Scaling, load_for
from pplebm.errors import PplebmError
from pplebm.export import to_arviz
from pplebm.guides.guide import Guide
from pplebm.hyper import override
from pplebm.phases import Phases
from pplebm.ppl import Latents
from pplebm.program import Program
from pplebm.sampling import sample

CHUNK = 512  # data per pass, so that memory does not grow with the data


class Run:
    """A learned model: its folder, program, parameters, and what can be asked of it.

    All arrays are NumPy. Data are in the user's units, as they were given to `pplebm.fit`. Sampling repeats the
    chains of learning unless `n_steps` says otherwise, and is the same for the same `seed`.
    """

    def __init__(
        self, path: Path, manifest: dict[str, Any], program: Program, page: ModuleType, hyper: Any, params: Any
    ) -> None:
        self.path, self.manifest = path, manifest
        self.program, self.page, self.hyper, self.params = program, page, hyper, params
        self.scaling = Scaling.from_json(manifest["data"]["scaling"])
        self.event_shape = tuple(manifest["data"]["event_shape"])
        self._phases: dict[Any, Phases] = {}

    def __repr__(self) -> str:
        m = self.manifest
        return f"Run({m['model']['name']} by {m['inference']['name']}, {m['updates']} updates, '{self.path}')"

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Rows of metrics.jsonl: figures by update."""
        return files.read_metrics(self.path)

    # --- latents in coordinates, for those who go on with the program themselves

    def prior_latents(self, n: int, seed: int = 0, base: bool = False, n_steps: int | None = None) -> Latents:
        """n latents of the tilted prior (or of its base) as the program's own arrays, centred coordinates."""
        key = self.program.ppl.key(seed)
        if base or not self.program.tilts:
            return self.program.draw_base(key, n, self.params)
        return self._phases_of("n_steps_prior", n_steps).prior(key, self.params, n)

    def posterior_latents(self, x: Any, seed: int = 0, n_steps: int | None = None) -> Latents:
        """One latent per datum of the posterior, centred coordinates; x in model units."""
        ppl, phases = self.program.ppl, self._phases_of("n_steps_posterior", n_steps)
        return phases.posterior(ppl.key(seed), self.params, ppl.asarray(x))

    # --- what most people want

    def sample_prior(
        self, n: int, seed: int = 0, base: bool = False, n_steps: int | None = None
    ) -> dict[str, np.ndarray]:
        """Draw n latents of the tilted prior, by site; with `base=True`, of its base, tilts ignored."""
        return self._numpy(self.program.values(self.params, self.prior_latents(_count(n), seed, base, n_steps)))

    def sample_posterior(self, x: Any, seed: int = 0, n_steps: int | None = None) -> dict[str, np.ndarray]:
        """Draw one latent per datum given data x, (B, *event), by site."""

        def values(x: Any, seed: int) -> Any:
            return self.program.values(self.params, self.posterior_latents(x, seed, n_steps))

        return self._by_chunks(values, x, seed)

    def reconstruct(self, x: Any, seed: int = 0, n_steps: int | None = None) -> np.ndarray:
        """Mean of the data given a posterior draw of their latents, (B, *event)."""

        def means(x: Any, seed: int) -> Any:
            return self._observe(self.posterior_latents(x, seed, n_steps))

        return self.scaling.to_user(self._by_chunks(means, x, seed)["x"])

    def sample_data(
        self, n: int, seed: int = 0, base: bool = False, mean: bool = False, n_steps: int | None = None
    ) -> np.ndarray:
        """Draw n data of the model, (n, *event); with `mean=True` without observation noise."""
        z = self.prior_latents(_count(n), seed, base, n_steps)
        key = None if mean else self.program.ppl.split(self.program.ppl.key(seed), 2)[1]
        return self.scaling.to_user(self._numpy(self._observe(z, key))["x"])

    def anomaly_score(self, x: Any, seed: int = 0, n_draws: int = 4) -> np.ndarray:
        r"""Score data, (B,); higher is more anomalous.

        .. math:: -E_{z \mid x}[\log p(x \mid z) + \log p_0(z) + f(z)]

        in nats, by `n_draws` posterior chains per datum: the unnormalised log posterior of Cui et al. (CVPR 2023),
        up to the model's constant log Z.
        """

        def score(x: Any, seed: int) -> Any:
            draws = [
                self.program.log_joint(self.params, self.posterior_latents(x, seed + 7919 * i), x)
                for i in range(n_draws)
            ]
            return {"score": -sum(draws) / n_draws}

        return self._by_chunks(score, x, seed)["score"]

    def to_arviz(self, x: Any = None, seed: int = 0, **settings: Any) -> Any:
        """Sample prior and, given data x, their posteriors by adjusted chains, and put them into ArviZ's container.

        The chains are those of `pplebm.sample` with `hmc` in noise coordinates, not the short runs of learning; how
        the two differ is what `pplebm diagnose` shows. Data are in model units there.

        Args:
            x: data in the user's units, (B, *event).
            seed: of the chains.
            settings: `n_chains`, `n_draws`, `n_warmup`, `thin`, `progress` of `pplebm.sample`.

        Raises:
            PplebmError: for settings that `pplebm.sample` refuses, or data of another shape.
        """
        program = self.program.with_coordinates("noise")
        settings = {"key": seed, "params": self.params} | settings
        posterior = None
        if x is not None:
            posterior = sample(program, data=load_for(self.scaling, self.event_shape, x), **settings)
        return to_arviz(posterior, sample(program, **settings), key=seed)

    # --- helpers

    def _observe(self, z: Latents, key: Any = None) -> dict[str, Any]:
        observed = self.program.observe(self.params, z, key)
        if len(observed) > 1:
            raise PplebmError(f"the program observes {', '.join(observed)}; use run.program.observe for each.")
        return {"x": next(iter(observed.values()))}

    def _phases_of(self, field: str, n_steps: int | None) -> Phases:
        hyper = self.hyper
        if n_steps is not None:
            hyper = override(hyper, {field: n_steps}, f"algorithm '{self.manifest['inference']['name']}'")
        if hyper not in self._phases:
            self._phases[hyper] = Phases(self.program, self.page, hyper)
        return self._phases[hyper]

    def _by_chunks(self, function: Callable[[Any, int], Any], x: Any, seed: int) -> dict[str, np.ndarray]:
        """Apply to data in the user's units, chunk by chunk; short chunks are filled up so that shapes repeat."""
        x = load_for(self.scaling, self.event_shape, x)
        ppl, size, parts = self.program.ppl, min(CHUNK, len(x)), []
        for i, start in enumerate(range(0, len(x), size)):
            rows = np.arange(start, start + size) % len(x)
            part = self._numpy(function(ppl.asarray(x[rows]), seed + 104729 * i))
            parts.append({name: a[: len(x) - start] for name, a in part.items()})
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def _numpy(self, arrays: dict[str, Any]) -> dict[str, np.ndarray]:
        return {name: self.program.ppl.to_numpy(a) for name, a in arrays.items()}


def open_run(
    path: str | Path,
    model: Callable[..., Any] | None = None,
    backend: str | None = None,
    guide: Callable[..., Any] | None = None,
) -> Run:
    """Open a run folder; pages are taken from the copies in it, nothing is unpickled.

    Args:
        path: folder that `pplebm.fit` or `pplebm fit --out` wrote.
        model: the callable, for a run that was fitted on a callable instead of a page or file; its own modules
            take the learned weights.
        backend: open a run of a gallery page in the other language. Weights, hyperparameters and scaling carry over;
            the random numbers, and so single draws, do not.
        guide: the callable, for a run that was fitted with one of its own.

    Raises:
        PplebmError: if there is no run, no checkpoint, or the pages and the checkpoint do not match.
    """
    folder = Path(path)
    manifest = files.read_manifest(folder)
    if backend is not None and backend != manifest["backend"]:
        manifest = _in_other_language(manifest, backend)
    program, page, hyper = rebuild(folder, manifest, model, guide)
    x = program.ppl.asarray(np.zeros((hyper.batch_size, *manifest["data"]["event_shape"])))
    template = train.begin(page, program, x, hyper, manifest["seed"], manifest["data"]["n_train"], manifest["ema"] > 0)
    progress = files.read_checkpoint(folder, program.ppl, template)
    params = progress.average or progress.state.params
    if model is not None:
        program.write_back(params)
    if guide is not None:
        program.guide.write_back(params)
    return Run(folder, manifest | {"updates": progress.update}, program.with_params(params), page, hyper, params)


def _in_other_language(manifest: dict[str, Any], backend: str) -> dict[str, Any]:
    name = manifest["model"]["name"]
    if manifest["model"]["page"] is None or not manifest["model"]["hyper"]:
        raise PplebmError(
            f"'{name}' is a {manifest['backend']} program; only gallery pages open on '{backend}' as well."
        )
    return manifest | {"backend": backend, "chains": {"compiled": False, "precision": "full"}}


def rebuild(
    folder: Path, manifest: dict[str, Any], model: Any = None, guide: Any = None
) -> tuple[Program, ModuleType, Any]:
    """Program, algorithm page and hyperparameters of a run, from the copies in its folder."""
    if manifest.get("has_own_guide", False) != (guide is not None):
        raise PplebmError(
            f"'{folder}' was fitted with{'out' * (guide is not None)} a guide of its own; open it with "
            f"open_run(path{', ..., guide=...' * (guide is None)})."
        )
    seed, shape = manifest["seed"], tuple(manifest["data"]["event_shape"])
    if model is None:
        if manifest["model"]["page"] is None:
            raise PplebmError(f"'{folder}' was fitted on a callable; open it with open_run(path, model=...).")
        model_page = gallery.load_copy(folder / manifest["model"]["page"]["file"], manifest["model"]["home"], seed)
        hyper = manifest["model"]["hyper"]
        model = gallery.bind(model_page, manifest["backend"], shape=shape, seed=seed, **hyper)
        guide = guide or gallery.bind_guide(model_page, manifest["backend"], shape, seed, hyper)
    page = gallery.load_copy(folder / manifest["inference"]["page"]["file"], manifest["inference"]["home"], seed)
    hyper = override(page.Hyper(), manifest["inference"]["hyper"], "the algorithm page of this run")
    example = np.load(folder / "example.npy", allow_pickle=False)
    program = with_guide(Program(model, data=example, seed=seed, backend=manifest["backend"]), guide)
    return program.with_chains(precision=manifest["chains"]["precision"]), page, hyper


def with_guide(program: Program, guide: Callable[..., Any] | None) -> Program:
    """The program with a guide of the user's, if there is one."""
    return program if guide is None else program.with_guide(Guide(program, guide))


def _count(n: Any) -> int:
    if not isinstance(n, int) or n < 1:
        raise PplebmError(f"the number of draws must be a positive integer, got {n!r}.")
    return n
