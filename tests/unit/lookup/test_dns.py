"""DNS look-ups against a real server, dnsmasq, on a loopback port."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator

import pytest

from osimager.errors import ConfigError
from osimager.lookup.dns import find_addresses

RECORDS = (
    "--address=/web.lab.example/192.0.2.10",
    "--host-record=both.lab.example,192.0.2.20,2001:db8::20",
    "--host-record=six.lab.example,2001:db8::6",
    "--host-record=db.prod.example,192.0.2.30",
    "--host-record=web.prod.example,192.0.2.31",
    "--host-record=plain,192.0.2.40",
    *(f"--host-record=several.lab.example,192.0.2.{number}" for number in (54, 51, 53, 52)),
    "--cname=www.lab.example,both.lab.example",
    "--txt-record=textonly.lab.example,nothing else",
    "--local=/example/2.0.192.in-addr.arpa/",
)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        port: int = udp.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    dnsmasq = shutil.which("dnsmasq") or shutil.which("dnsmasq", path="/usr/sbin")
    if dnsmasq is None:
        pytest.skip("dnsmasq is not installed (Debian: dnsmasq-base)")
    port = free_port()
    argv = [dnsmasq, "--keep-in-foreground", "--log-facility=-", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
            "--pid-file", f"--user={os.environ.get('USER', 'root')}", "--listen-address=127.0.0.1", "--bind-interfaces",
            f"--port={port}", *RECORDS]  # fmt: skip
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        try:
            # It says so when it listens; what it says afterwards fits into the pipe.
            for line in child.stderr:
                if "started" in line:
                    break
            yield f"127.0.0.1:{port}"
        finally:
            child.terminate()


def test_a_name_gives_its_ipv4_addresses_and_its_ipv6_ones_where_it_has_no_other(server: str) -> None:
    assert find_addresses("both.lab.example", servers=[server]) == ("192.0.2.20",)
    assert find_addresses("six.lab.example", servers=[server]) == ("2001:db8::6",)
    assert find_addresses("both.lab.example.", servers=[server]) == ("192.0.2.20",)


def test_an_alias_is_followed(server: str) -> None:
    assert find_addresses("www.lab.example", servers=[server]) == ("192.0.2.20",)


@pytest.mark.parametrize("host", ["nowhere.lab.example", "textonly.lab.example"])
def test_a_name_without_an_address_gives_none(server: str, host: str) -> None:
    assert find_addresses(host, servers=[server]) == ()


def test_search_domains_are_tried_in_their_order(server: str) -> None:
    search = ["lab.example", "prod.example"]
    assert find_addresses("db", servers=[server], search=search) == ("192.0.2.30",)
    assert find_addresses("web", servers=[server], search=search) == ("192.0.2.10",)
    assert find_addresses("web", servers=[server], search=search[::-1]) == ("192.0.2.31",)
    assert find_addresses("plain", servers=[server], search=search) == ("192.0.2.40",)


def test_no_domain_is_added_where_none_was_given(server: str) -> None:
    assert find_addresses("plain", servers=[server]) == ("192.0.2.40",)
    with pytest.raises(ConfigError, match="cannot answer about 'db'"):
        find_addresses("db", servers=[server])


def test_an_address_is_not_asked_for() -> None:
    assert find_addresses("192.0.2.1", servers=["127.0.0.1:9"]) == ("192.0.2.1",)
    assert find_addresses("2001:db8::1", servers=["127.0.0.1:9"]) == ("2001:db8::1",)


def test_a_dead_server_costs_only_its_share_of_the_deadline(server: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{silent.getsockname()[1]}"
        assert find_addresses("web.lab.example", servers=[dead, server], deadline_s=2) == ("192.0.2.10",)


def test_silence_is_an_error_that_names_the_server() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ConfigError, match=rf"no answer about 'web.lab.example' from {dead} within 0.3 s") as caught:
            find_addresses("web.lab.example", servers=[dead], deadline_s=0.3)
    assert caught.value.hint


def test_a_server_that_refuses_is_an_error_not_an_absence(server: str) -> None:
    # dnsmasq has nobody to forward to: it answers REFUSED for what is not its own.
    with pytest.raises(ConfigError, match=r"cannot answer about .debian\.org."):
        find_addresses("debian.org", servers=[server])


@pytest.mark.parametrize("wrong", ["ns.example.com", "1.2.3.4:0", "1.2.3.4:99999", "[::1", "", "1.2.3"])
def test_a_server_that_is_no_address_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="is not an address"):
        find_addresses("web.lab.example", servers=[wrong])


@pytest.mark.parametrize("wrong", ["a..b", "x" * 64 + ".example", ".".join(["x" * 60] * 5)])
def test_a_name_that_cannot_be_one_is_an_error(wrong: str) -> None:
    with pytest.raises(ConfigError, match="cannot be looked up"):
        find_addresses(wrong, servers=["127.0.0.1:9"])


def test_several_addresses_come_in_the_same_order_each_time(server: str) -> None:
    expected = tuple(f"192.0.2.{number}" for number in (51, 52, 53, 54))
    assert {find_addresses("several.lab.example", servers=[server]) for _ in range(4)} == {expected}
