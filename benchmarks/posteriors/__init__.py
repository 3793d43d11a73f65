"""Posteriors of posteriordb as programs, and their reference draws."""
