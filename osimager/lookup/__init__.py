"""Layer 3: questions to the network, answered for the configuration. DNS so far."""
