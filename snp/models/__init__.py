"""Grounding models on any pair of transformer towers."""
