"""Measurements, each a command: `python -m benchmarks.enclave`. Compare ratios within one run; machines are noisy."""
