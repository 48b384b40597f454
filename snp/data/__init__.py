"""Data: the annotation format, desk-scale data sets (scenes, stamps) and what feeds them to a model."""
