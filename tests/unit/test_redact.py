"""The masker: a secret, in whatever form, never comes out."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
import string
import subprocess
import urllib.parse
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from osimager.crypt import Method, crypt
from osimager.errors import ConfigError, ConfigErrors
from osimager.events import Bus, OutputLine, Stamped
from osimager.redact import MASK, Masker

# An asterisk in a secret may meet those of the mask; a blank one is nothing to hide.
ALPHABET = st.characters(exclude_characters="*", exclude_categories=["Cs"])
SECRETS = st.text(ALPHABET, min_size=4, max_size=60).filter(lambda text: len(text.strip()) >= 4)
NEIGHBOURS = st.text(ALPHABET, max_size=20)

ENCODERS: dict[str, Callable[[str], str]] = {
    "raw": lambda text: text,
    "json": json.dumps,
    "json-unicode": lambda text: json.dumps(text, ensure_ascii=False),
    "json-in-json": lambda text: json.dumps(json.dumps({"text": text})),
    "shell": shlex.quote,
    "shell-in-single-quotes": lambda text: "'say " + text.replace("'", "'\\''") + "'",
    "quotemeta": lambda text: re.sub(r"([^\w\n])", r"\\\1", text),
    "url": urllib.parse.quote,
    "url-all": lambda text: urllib.parse.quote(text, safe=""),
    "form": lambda text: urllib.parse.urlencode({"password": text}),
    "xml": html.escape,
    "xml-text": lambda text: html.escape(text, quote=False),
    "yaml-single": lambda text: "'" + text.replace("'", "''") + "'",
    "python": repr,
    "python-bytes": lambda text: repr(text.encode()),
    "hex": lambda text: text.encode().hex(),
    "hex-upper": lambda text: text.encode().hex().upper(),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64-url": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64-utf16": lambda text: base64.b64encode(text.encode("utf-16-le")).decode(),
}


def masker_of(*secrets: str) -> Masker:
    masker = Masker()
    for secret in secrets:
        masker.register(secret)
    return masker


@pytest.mark.parametrize("name", ENCODERS)
@given(secret=SECRETS, before=NEIGHBOURS, after=NEIGHBOURS)
@example(secret="''\"\"", before="", after="")
def test_no_encoding_brings_a_secret_out(name: str, secret: str, before: str, after: str) -> None:
    encoded = ENCODERS[name](secret)
    masked = masker_of(secret).mask(f"{before}{encoded}{after}")
    assert secret not in masked
    assert (encoded.strip("\"'") or encoded) not in masked  # a secret of quotes only leaves nothing to look for
    assert MASK in masked


@given(secret=SECRETS, before=st.binary(max_size=20), after=st.binary(max_size=20))
def test_base64_of_a_longer_text_does_not_bring_it_out(secret: str, before: bytes, after: bytes) -> None:
    masked = masker_of(secret).mask(base64.b64encode(before + secret.encode() + after).decode())
    for piece in masked.split(MASK):
        for shift in range(4):
            whole = piece[shift:].rstrip("=")
            decoded = base64.b64decode(whole[: len(whole) // 4 * 4])
            assert secret.encode() not in decoded


@given(secret=SECRETS)
def test_yaml_as_pyyaml_writes_it_does_not_bring_it_out(secret: str) -> None:
    written = yaml.safe_dump({"password": secret}, width=1000, allow_unicode=True)
    assert secret not in masker_of(secret).mask(written)


@given(st.lists(SECRETS, min_size=1, max_size=5), st.data())
def test_overlapping_secrets_are_all_hidden(secrets: list[str], data: st.DataObject) -> None:
    text = "".join(data.draw(st.lists(st.sampled_from(secrets), min_size=1, max_size=6)))
    masked = masker_of(*secrets).mask(text)
    assert not [secret for secret in secrets if secret in masked]


def test_overlapping_secrets_leave_no_remains() -> None:
    assert masker_of("abcdef", "defghi").mask("x abcdefghi y") == f"x {MASK} y"


@given(st.text(st.characters(exclude_characters="$%&"), max_size=200))
def test_a_text_without_secrets_stays_as_it_is(text: str) -> None:
    masker = masker_of("Zq8!secret-that-is-nowhere")
    assert masker.mask(text) == text
    assert Masker().mask(text) == text


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("quote", [str, shlex.quote, urllib.parse.quote, lambda text: text.replace("$", "\\$")])
def test_crypt_hashes_are_masked_though_nobody_registered_them(method: Method, quote: Callable[[str], str]) -> None:
    hashed = crypt("hunter22", "abcdefgh/.123456", method)
    masked = Masker().mask(f"rootpw --iscrypted {quote(hashed)} # done")
    assert masked.startswith("rootpw --iscrypted")
    assert masked.endswith(" # done")
    assert hashed.rpartition("$")[2][:12] not in masked


@pytest.mark.parametrize(
    "hashed",
    [
        "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7",
        "$2b$12$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW",
        "$6$rounds=5000$usesomesillystri$D4IrlXatmP7rx3P3InaxBeoomnAihCKRVQAr",
    ],
)
def test_hashes_that_a_guest_made_are_masked(hashed: str) -> None:
    assert Masker().mask(f"root:{hashed}:19000:0") == f"root:{MASK}:19000:0"


def test_shell_parameters_are_no_hashes() -> None:
    text = 'cp "$1" "$2/$3" && echo $6 costs $5 $PATH'
    assert Masker().mask(text) == text


def make_private_key() -> str:
    argv = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
    return subprocess.run(argv, capture_output=True, check=True, text=True).stdout


def test_a_secret_of_many_lines_printed_line_by_line_stays_hidden() -> None:
    key = make_private_key()
    masker = masker_of(key)
    body = key.splitlines()[1:-1]
    for line in body:
        assert masker.mask(f"[   1.0] step: {line}\r").rstrip() == f"[   1.0] step: {MASK}"


@pytest.mark.parametrize("width", [60, 64, 76])
def test_wrapped_base64_of_a_secret_stays_hidden(width: int) -> None:
    key = make_private_key()
    masker = masker_of(key)
    encoded = base64.b64encode(b"some: yaml\n" + key.encode()).decode()
    lines = [encoded[at : at + width] for at in range(0, len(encoded), width)]
    for line in lines[1:-1]:
        assert masker.mask(line) == MASK


def test_a_long_line_cut_by_a_terminal_stays_hidden() -> None:
    token = "hvs." + "".join(chr(97 + (index * 7) % 26) + str(index % 10) for index in range(50))
    masker = masker_of(token)
    assert masker.mask("token " + token[:40]) == f"token {MASK}"
    assert masker.mask(token[40:] + " end") == f"{MASK} end"


@pytest.mark.parametrize(
    ("text", "begun"),
    [
        ("ks=hunter2", "hunter2"),
        ("ks=hunter2hunter2 h", ""),
        ("ks=hun", "hun"),
        ("ks=hu", ""),
        ("huntsman", ""),
        ("", ""),
        ("sword", "sword"),
    ],
)
def test_what_may_go_on_as_a_secret_is_found(text: str, begun: str) -> None:
    masker = Masker()
    for secret in ("hunter2hunter2", "swordfish", "x"):
        masker.register(secret)
    assert text[masker.find_begun(text) :] == begun


def test_short_secrets_are_masked_as_whole_words_only() -> None:
    masker = masker_of("abc", "7")
    assert masker.mask("abc=7 abcd 77 x_abc") == f"{MASK}={MASK} abcd 77 x_abc"
    assert masker.mask("61626378") == f"{MASK}78"


@pytest.mark.parametrize("nothing", ["", "  ", "\n", "****"])
def test_nothing_is_no_secret(nothing: str) -> None:
    assert masker_of(nothing).mask("a  b\n ****** c") == "a  b\n ****** c"


def test_a_masker_does_not_show_what_it_knows() -> None:
    assert "hunter22" not in repr(masker_of("hunter22"))


def test_thousands_of_secrets_with_a_common_beginning_are_all_found() -> None:
    secrets = [f"common-beginning-{number:05d}-{number * 7919 % 100003:x}" for number in range(2000)]
    masker = masker_of(*secrets)
    text = "\n".join(f"{secret} {base64.b64encode(secret.encode()).decode()}" for secret in secrets)
    assert masker.mask(text) == "\n".join([f"{MASK} {MASK}"] * len(secrets))


def test_ten_thousand_secrets_on_the_bus_in_every_encoding_reach_no_sink() -> None:
    random = Random(2026)
    letters = string.ascii_letters + string.digits + "!@#$%^&()'\"<>/\\ ,;:=+-_äß€\n"
    secrets = ["".join(random.choices(letters, k=random.randint(8, 40))) + "x" for _ in range(10_000)]
    masker = masker_of(*secrets)
    bus = Bus(now=lambda: datetime(2026, 1, 1, tzinfo=UTC), masker=masker)
    encoders = list(ENCODERS.values())
    found = 0
    seen: list[Stamped] = []
    with bus.listening(seen.append):
        for number, secret in enumerate(secrets):
            encoded = encoders[number % len(encoders)](secret)
            bus.emit(OutputLine("step", f"it prints {encoded} and goes on"))
            written = json.dumps(seen.pop().to_json(), ensure_ascii=False)
            said = json.loads(written)["text"]
            found += secret in said or encoded.strip("'\"") in said or secret in written
    assert found == 0


def test_what_an_error_says_is_masked_with_all_it_came_from() -> None:
    masker = masker_of("s3cret'word")
    first = ConfigError('memory: "s3cret\'word" is no size', hint="not s3cret'word")
    several = ConfigErrors([first, ConfigError("another")])
    several.__cause__ = ValueError("s3cret'word is bad")
    with pytest.raises(ConfigErrors), masker.over_errors():
        raise several
    assert (first.what, first.hint) == (f'memory: "{MASK}" is no size', f"not {MASK}")
    assert str(several.__cause__) == f"{MASK} is bad"
