"""`osimager platform`."""

from __future__ import annotations

from osimager.cli.names import list_group

command = list_group("platforms", "List platforms.")
