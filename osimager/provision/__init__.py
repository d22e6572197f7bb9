"""Layer 3: inside a running guest: the way in, and the steps that are run there."""
