"""Values that follow from a location's network and a host's name. Pure: nothing is looked up here."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_cidr(text: str) -> Network:
    """Read `192.168.1.0/24`, `192.168.1.10/24` or `fd00::/64`. Raises ValueError with a sentence."""
    try:
        return ipaddress.ip_interface(text).network
    except ValueError:
        raise ValueError(f"{text!r} is not a network: write ADDRESS/PREFIX such as 192.168.1.0/24") from None


def is_address(text: str) -> bool:
    """Tell whether `text` is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_host_name(text: str) -> bool:
    """Tell whether `text` is a host's name, short or full (RFC 1123, section 2.1)."""
    return len(text) <= 253 and all(map(_LABEL.fullmatch, text.split(".")))


def cidr_values(text: str) -> dict[str, str]:
    """Give what follows from a `cidr`: subnet, prefix, netmask and (a usable guess) the gateway.

    The gateway of a network without one is its last host's address, as in OSImager: the last but one of all, the
    upper one of a /31 (RFC 3021), the very one of a /32; for IPv6 the first (RFC 4291 has no broadcast address).
    """
    if "/" not in text:
        raise ValueError(f"{text!r} is not a network: write ADDRESS/PREFIX such as 192.168.1.0/24")
    network = parse_cidr(text)
    spare = network.num_addresses
    if isinstance(network, ipaddress.IPv6Network):
        gateway = str(network[1] if spare > 1 else network[0])
    else:
        gateway = str(network[-2] if spare > 2 else network[-1])
    return {
        "subnet": text.partition("/")[0],
        "prefix": str(network.prefixlen),
        "netmask": str(network.netmask),
        "gateway": gateway,
    }


def server_values(prefix: str, servers: Sequence[str]) -> dict[str, str]:
    """Number servers from one: dns1, dns2, …"""
    return {f"{prefix}{number}": server for number, server in enumerate(servers, 1)}


def check_servers(value: object) -> None:
    """Refuse a `dns` or `ntp` def that names no servers. Raises ValueError with a sentence."""
    if isinstance(value, Mapping):
        unknown = [key for key in value if key not in ("servers", "search")]
        if unknown:
            raise ValueError(f"the key {unknown[0]!r} is unknown here")
        parts = list(value.values())
    else:
        parts = [value]
    for part in parts:
        if not (part is None or isinstance(part, str) or (isinstance(part, list) and all(map(_is_text, part)))):
            raise ValueError("a list of texts is needed here")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def server_list(value: object) -> tuple[str, ...]:
    """Give the servers of a `dns` or `ntp` def: `{servers: […]}`, a list, or one as text."""
    if isinstance(value, Mapping):
        value = value.get("servers")
    if isinstance(value, str):
        return tuple(value.replace(",", " ").split())
    return tuple(str(server) for server in value) if isinstance(value, list | tuple) else ()


def search_list(value: object) -> tuple[str, ...]:
    """Give the search domains of a `dns` def."""
    found = value.get("search") if isinstance(value, Mapping) else None
    if isinstance(found, str):
        return tuple(found.replace(",", " ").split())
    return tuple(str(domain) for domain in found) if isinstance(found, list | tuple) else ()


def qualified_name(name: str, *, is_given: bool, asked: str | None, domain: str) -> str:
    """Give the fully qualified name: what was `asked` for, else a given dotted name, else name.domain."""
    if asked:
        return asked
    if is_given and "." in name:
        return name
    return f"{name}.{domain}" if domain else name
