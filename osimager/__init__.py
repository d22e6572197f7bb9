"""osimager: from a vendor's installer ISO to a verified, registered image."""

__version__ = "2.0.0.dev0"
