"""Experiments: what a run is (spec), where it lives (store), what a table consists of (tables); never imports torch."""
