"""`python -m osimager`."""

from osimager.cli.main import main

main()
