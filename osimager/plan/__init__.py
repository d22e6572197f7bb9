"""Layer 2: (configuration, facts) → a frozen plan. Pure: no file, no socket, no clock."""
