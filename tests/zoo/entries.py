"""What is known of a program of the zoo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

HOSTS = ("pyro", "numpyro")


@dataclass(frozen=True, eq=False, repr=False)
class Entry:
    """A program in both languages, its data, and what a `pplebm.Program` has to find out about it."""

    make: Callable[[Any], Callable[..., Any]]  # of a host, a model
    data: Any  # of NumPy: what the model is called with
    latents: tuple[str, ...]
    observed: tuple[str, ...]
    covariates: tuple[str, ...] = ()
    tilts: tuple[str, ...] = ()
    deterministic: tuple[str, ...] = ()
    factors: tuple[str, ...] = ()  # of the likelihood
    joint: bool = False  # a latent stands outside the data plate
    reads_prior: bool = False  # latents or tilts read covariates
    reads_generator: bool = False  # the distribution of an observed site reads data
    plate: str | None = "data"
    dim: int = -1  # of the data plate
    exchangeable: bool = True  # the order of rows does not matter
    improper: bool = False  # a latent has no draws
    loops: tuple[str, ...] = ()  # hosts whose code runs for one chain at a time
    hosts: tuple[str, ...] = HOSTS
    log_z: Callable[..., Any] | None = None  # of the data, by row, where it is known

    @property
    def name(self) -> str:
        """That of the function which makes it."""
        return self.make.__name__

    def __repr__(self) -> str:
        return self.name


NAMES = ("latents", "observed", "covariates", "tilts", "deterministic", "factors", "loops", "hosts")


def entry(data: Any, **facts: Any) -> Callable[[Callable[[Any], Any]], Entry]:
    """Make an entry of a function from a host to a model; lists of names are strings with blanks."""
    split = {k: tuple(v.split()) if k in NAMES and isinstance(v, str) else v for k, v in facts.items()}
    return lambda make: Entry(make, data, **split)


def entries_of(module: ModuleType) -> list[Entry]:
    """All entries of a module."""
    return [value for value in vars(module).values() if isinstance(value, Entry)]
