"""Layer 3: what the guest boots from and reads: ISOs fetched or made, seed ISOs, the answer server."""
