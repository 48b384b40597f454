"""The heart: Tower views, Plans, budgets, surgery, counting, and the interface that every method meets."""
