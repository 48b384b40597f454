"""A model of the user's own, from its name: opened, looked at, and what it learns by while it is compressed."""
