"""Layer 1: every file of ours on disk (specs, locations, platforms, profiles, isos.d) to frozen, explained values.

Synchronous; opens no socket: secrets, DNS and the environment come in through `lookups.Lookups`.
"""
