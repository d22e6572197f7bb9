"""Layer 4: the runner: a flat list of awaited stages, and what records, caches and cleans up around it."""
