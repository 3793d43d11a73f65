"""The guide that an algorithm page learns beside a program: one per program, made when it is first asked for."""

from __future__ import annotations

from typing import Any

from pplebm.guides.amortized import amortized
from pplebm.guides.guide import Guide
from pplebm.program import Program


def guide_of(program: Program, **settings: Any) -> Guide:
    """The program's own guide (`program.with_guide`), or one that `amortized` derives with these settings.

    Pages ask for it in `init`, which adds its parameters to those of the model, and again wherever it is used.
    """
    if program.guide is not None:
        guide: Guide = program.guide
        return guide
    program.refuse_given("a guide")
    name = ("guide", *sorted((key, str(value)) for key, value in settings.items()))
    return program.cached(name, lambda: amortized(program, seed=program.seed, **settings))
