"""Data that are drawn here from a seed: scenes, stamps, and what is said and asked about them."""
