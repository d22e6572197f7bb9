"""What QEMU's user network tells of its connections (`info usernet`, libslirp's slirp_connection_info)."""

from __future__ import annotations

from osimager.machine.endpoint import has_outgoing

HEAD = """\
Hub -1 (nic0-net):
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
  TCP[HOST_FORWARD]  17       127.0.0.1 40123        10.0.2.15    22     0     0
"""


def test_download_of_the_guest_is_seen() -> None:
    assert has_outgoing(HEAD + "  TCP[ESTABLISHED]   21       10.0.2.15 33514   151.101.2.132    80     0     0\n")


def test_way_in_closed_connections_and_datagrams_are_none() -> None:
    rest = """\
  TCP[ESTABLISHED]   23       127.0.0.1 40123        10.0.2.15    22     0     0
  TCP[TIME_WAIT]     24       10.0.2.15 33516   151.101.2.132    80     0     0
  UDP[236 sec]       25       10.0.2.15 45623        10.0.2.3    53     0     0
"""
    assert not has_outgoing(HEAD + rest)
