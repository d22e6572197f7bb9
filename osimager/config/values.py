"""A configuration value as plain Python: what YAML, JSON and TOML have in common."""

from __future__ import annotations

Scalar = str | int | float | bool | None
Value = Scalar | list["Value"] | dict[str, "Value"]
