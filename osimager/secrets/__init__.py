"""Layer 3: a secret's reference → its value, from a file, Vault, the environment or a command."""
