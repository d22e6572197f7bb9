"""What follows from a network and a name."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osimager.config.network import cidr_values, qualified_name, search_list, server_list, server_values


@pytest.mark.parametrize(
    ("cidr", "subnet", "prefix", "netmask", "gateway"),
    [
        ("192.168.1.0/24", "192.168.1.0", "24", "255.255.255.0", "192.168.1.254"),
        ("10.0.0.0/8", "10.0.0.0", "8", "255.0.0.0", "10.255.255.254"),
        ("192.0.2.4/31", "192.0.2.4", "31", "255.255.255.254", "192.0.2.5"),
        ("192.0.2.4/32", "192.0.2.4", "32", "255.255.255.255", "192.0.2.4"),
        ("fd00:1::/64", "fd00:1::", "64", "ffff:ffff:ffff:ffff::", "fd00:1::1"),
        ("0.0.0.0/0", "0.0.0.0", "0", "0.0.0.0", "255.255.255.254"),
    ],
)
def test_a_network_gives_subnet_prefix_netmask_and_gateway(
    cidr: str, subnet: str, prefix: str, netmask: str, gateway: str
) -> None:
    assert cidr_values(cidr) == {"subnet": subnet, "prefix": prefix, "netmask": netmask, "gateway": gateway}


@pytest.mark.parametrize("text", ["192.168.1.0", "192.168.1.0/33", "x/24", "", "/", "1.2.3/8", "::/129"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="network"):
        cidr_values(text)


@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_the_gateway_lies_in_its_network(address: int, prefix: int) -> None:
    text = f"{ipaddress.IPv4Address(address)}/{prefix}"
    values = cidr_values(text)
    assert ipaddress.ip_address(values["gateway"]) in ipaddress.ip_network(text, strict=False)


def test_a_name_is_qualified_once() -> None:
    assert qualified_name("web", is_given=True, asked="a.b", domain="lab.org") == "a.b"
    assert qualified_name("web.x.org", is_given=True, asked=None, domain="lab.org") == "web.x.org"
    assert qualified_name("rhel-9.5", is_given=False, asked=None, domain="lab.org") == "rhel-9.5.lab.org"
    assert qualified_name("web", is_given=True, asked=None, domain="") == "web"


def test_servers_in_every_form() -> None:
    assert server_list({"servers": ["a", "b"]}) == server_list(["a", "b"]) == server_list("a, b") == ("a", "b")
    assert server_list(None) == server_list({}) == ()
    assert server_values("dns", ("a", "b")) == {"dns1": "a", "dns2": "b"}
    assert search_list({"search": ["x"]}) == search_list({"search": "x"}) == ("x",)
