"""Posteriors of posteriordb as programs for both backends, and their published densities."""
