"""Benches: what counting, training, scoring and starting cost."""
