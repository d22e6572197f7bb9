"""Layer 3: the answer formats' own validators, run as subprocesses."""
