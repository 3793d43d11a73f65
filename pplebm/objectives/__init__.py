"""Objectives: `objective(...) -> scalar, aux`, to be minimised over the parameters."""
