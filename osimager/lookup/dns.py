"""Names to addresses, by the servers that a location names, with a deadline. The one user of dnspython."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from osimager.config.network import is_address
from osimager.errors import ConfigError

if TYPE_CHECKING:
    from dns.nameserver import Nameserver

DNS_PORT = 53
DEADLINE_S = 5.0


def find_addresses(
    host: str,
    *,
    servers: Sequence[str] = (),
    search: Sequence[str] = (),
    deadline_s: float = DEADLINE_S,
) -> tuple[str, ...]:
    """Give the IPv4 addresses of `host`, else its IPv6 ones, none where it has neither; an address is its own.

    They are in order: servers take turns with the first of several, and what is made of it is to be the same tomorrow.

    `servers` are addresses, with `:PORT` or `[…]:PORT` where it is not 53; without any, the system's are asked. A name
    with a dot is tried as it is first, then in each domain of `search`; one without the other way round.

    Raises ConfigError where no server answers before the deadline, all refuse, or the name cannot be one.
    """
    if is_address(host):
        return (host,)
    found = (_ask(host, kind, servers, search, deadline_s) for kind in ("A", "AAAA"))
    return next(filter(None, found), ())


def _ask(host: str, kind: str, servers: Sequence[str], search: Sequence[str], deadline_s: float) -> tuple[str, ...]:
    import dns.exception
    import dns.name
    import dns.resolver

    asked = ", ".join(servers) or "the system's servers"
    try:
        resolver = dns.resolver.Resolver(configure=not servers)
        if servers:
            resolver.nameservers = [_nameserver(server) for server in servers]
        if search:
            resolver.search = [dns.name.from_text(domain) for domain in search]
        resolver.lifetime = deadline_s
        resolver.timeout = max(0.2, deadline_s / (2 * max(1, len(resolver.nameservers))))
        answer = resolver.resolve(host, kind, search=bool(search) or not servers, raise_on_no_answer=False)
    except dns.resolver.NXDOMAIN:
        return ()
    except dns.exception.Timeout:
        hint = "check `dns` in the location, or leave it out to ask the system's servers"
        raise ConfigError(f"no answer about {host!r} from {asked} within {deadline_s:g} s", hint=hint) from None
    except dns.resolver.NoNameservers:
        hint = "check `dns` in the location: they do not serve us, or are broken"
        raise ConfigError(f"{asked} cannot answer about {host!r}", hint=hint) from None
    except dns.resolver.NoResolverConfiguration:
        raise ConfigError("this host has no DNS servers", hint="name some under `dns` in the location") from None
    except (dns.exception.DNSException, UnicodeError) as exc:
        raise ConfigError(f"{host!r} cannot be looked up: {type(exc).__name__}", hint="check the name") from None
    return tuple(sorted(record.to_text().rstrip(".") for record in answer))


def _nameserver(server: str) -> Nameserver:
    """Read `ADDRESS`, `ADDRESS:PORT` or `[ADDRESS]:PORT`."""
    import dns.nameserver

    port = DNS_PORT
    address = server
    if match := re.fullmatch(r"\[([^\]]+)\](?::(\d{1,5}))?|([^:]+):(\d{1,5})", server):
        address = match[1] or match[3]
        port = int(match[2] or match[4] or DNS_PORT)
    if not is_address(address) or not 0 < port < 65536:
        raise ConfigError(f"the DNS server {server!r} is not an address", hint="write ADDRESS or ADDRESS:PORT")
    return dns.nameserver.Do53Nameserver(address, port)
