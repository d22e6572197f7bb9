"""Layer 3: from a provisioned disk to an image: seal, convert, verify."""
