"""Expressions that mean nothing in their picture, made of those that mean something, to train with."""
