"""Benchmarks, each one run that prints rivals side by side; every module has `add_arguments` and `run`."""
