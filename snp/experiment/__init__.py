"""Experiments: what a run is (spec), how it is judged (benchmarks), which rows a table has; never imports torch."""
