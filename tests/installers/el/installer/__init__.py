"""A test installer that obeys kickstart files, with the manners of Anaconda and the payload of Debian.

It runs in the live system of the media that tests/installers makes, with Debian's Python and the real pykickstart. What
it proves is the path: the menu, the seed or server, the kickstart's syntax, the disk, accounts, scripts, the end.
"""
