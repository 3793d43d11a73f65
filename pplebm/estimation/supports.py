"""Parameters as the model sees them, on the scale of a constraint such as that of positive numbers: delta method."""

from __future__ import annotations

import math

import numpy as np

from pplebm.estimation.derivatives import Chosen


class Supports:
    r"""The chosen numbers on the scales that the model declares, :math:`c(\theta)`, with the slopes of c.

    `program.params` holds parameters with a constraint unconstrained, where they are estimated. Their covariance on the
    other scale is :math:`C \Sigma C^\top` with :math:`C = \partial c / \partial \theta`.

    Args:
        chosen: parameters.
    """

    def __init__(self, chosen: Chosen) -> None:
        self.chosen = chosen
        self.slopes = np.zeros((0, len(chosen)))
        labels: list[str] = []
        values: list[np.ndarray] = []
        is_changed: list[bool] = []
        at = 0
        for name, shape in chosen.shapes.items():
            size = math.prod(shape)
            value, slope, own_shape = self._of(name)
            labels += [name + (f"[{','.join(map(str, i))}]" if i else "") for i in np.ndindex(own_shape)]
            values.append(value)
            is_changed += [bool(own_shape != shape or (slope != np.eye(size)).any())] * len(value)
            block = np.zeros((len(value), len(chosen)))
            block[:, at : at + size] = slope
            self.slopes = np.concatenate([self.slopes, block])
            at += size
        self.labels, self.value, self.is_changed = tuple(labels), np.concatenate(values), np.array(is_changed)

    def _of(self, name: str) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
        """Value (k,), slopes (k, size) and shape of one parameter."""
        chosen = self.chosen
        program, ppl, free = chosen.program, chosen.program.ppl, chosen.params[name]
        seen = program.params_in_supports(chosen.params)
        if name not in seen:
            flat = np.asarray(ppl.to_numpy(free), float).reshape(-1)
            return flat, np.eye(len(flat)), chosen.shapes[name]
        value = np.asarray(ppl.to_numpy(seen[name]), float)

        def slope(i: int) -> np.ndarray:
            of = lambda at: program.params_in_supports(chosen.params | at)[name].reshape(-1)[i]
            return np.asarray(ppl.to_numpy(ppl.value_and_grad(of, {name: free})[1][name]), float).reshape(-1)

        return value.reshape(-1), np.stack([slope(i) for i in range(value.size)]), value.shape

    def at(self, vector: np.ndarray) -> np.ndarray:
        """All numbers on the scale of the model, at other values of the chosen ones."""
        chosen = self.chosen
        params = chosen.at(vector)
        seen = params | chosen.program.params_in_supports(params)
        return chosen.flat(seen)

    def ends(self, vector: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ends of intervals: those of the free scale carried over where a number is a function of one, else ± error.

        Args:
            vector: half widths on the free scale, (n,).
            error: half widths on the scale of the model.
        """
        low, high = self.value - error, self.value + error
        if len(self.value) != len(vector):
            return low, high
        of_one = (self.slopes != 0.0).sum(1) == 1
        of_one &= np.diag(self.slopes) != 0.0
        both = np.stack([self.at(self.chosen.value - vector), self.at(self.chosen.value + vector)])
        return np.where(of_one, both.min(0), low), np.where(of_one, both.max(0), high)
