"""Launching: what starts runs, here or as jobs of a cluster, and tells how they stand."""
