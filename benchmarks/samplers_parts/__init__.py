"""Parts of benchmarks/samplers.py: targets, pplebm's samplers, and those of its peers."""
