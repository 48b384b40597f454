"""Trimming: each input keeps only the image tokens and attention heads that it needs [paper: SmartTrim]."""
