"""Runs as they are kept: results, who holds a folder, what was submitted, and what has begun."""
