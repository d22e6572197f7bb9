"""Markers: what is one, what it gives, and that what it gives is never read again."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Sequence
from xml.etree import ElementTree

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from osimager.config.markers import Marker, Names, Renderer, parse_template
from osimager.config.values import Value
from osimager.crypt import Method, crypt
from osimager.errors import ConfigError, ConfigErrors, Place

SALT = "saltsaltsaltsalt"


class Defs(Names):
    """Values that are final."""

    def __init__(self, values: dict[str, Value]) -> None:
        self.values = values

    def value(self, name: str, where: Place | None) -> Value:
        if name not in self.values:
            raise ConfigError(f"{name!r} is not defined", where=where)
        return self.values[name]

    def is_defined(self, name: str) -> bool:
        return name in self.values


class Answers:
    """One secret, one variable, one host."""

    def __init__(self, secret: str = "s3cret") -> None:
        self.answer = secret

    def secret(self, path: str, key: str | None) -> str:
        return f"{self.answer}" if key == "password" else f"{path}|{key}"

    def dns(self, host: str, servers: Sequence[str], search: Sequence[str]) -> str | None:
        return {"db.example.org": "192.0.2.7"}.get(host)

    def environment(self, name: str) -> str | None:
        return {"HOME": "/root", "EVIL": ">>arch<<E>1<E"}.get(name)

    def salt(self, purpose: str) -> str:
        return SALT

    def is_writable(self, path: str) -> bool:
        return False


DEFS: dict[str, Value] = {
    "arch": "x86_64", "dist": "debian", "iso": "/isos/a.iso", "list": ["a", "b"], "no": False, "zero": 0, "none": None,
    "empty": "", "table": {"k": ["v"]}, "cpus": "2", "cores": 4, "db": "db.example.org", "a_b": "nested",
    "pw": "hunter2", "major": "9", "sneaky": ">>arch<<",
}  # fmt: skip


def renderer(secret: str = "s3cret") -> Renderer:
    return Renderer(Defs(DEFS), Answers(secret), lambda: ((), ()))


def render(text: str) -> str:
    return renderer().render(text)


def resolve(value: Value) -> Value:
    return renderer().resolve_value(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a >>arch<< b", "a x86_64 b"),
        (">>arch<<>>dist<<", "x86_64debian"),
        ("<domain>>>dist<<</domain>", "<domain>debian</domain>"),
        ("<a b='>>dist<<'/>", "<a b='debian'/>"),
        ("+>iso<+", "a.iso"),
        ("x[>list<]y", "xa by"),
        ("*>db<* *>db.example.org<*", "192.0.2.7 192.0.2.7"),
        ("|>images/linux:password<|", "s3cret"),
        ('|>"images/linux:password"<|', "s3cret"),
        ("|>team-a/db.main@x:user<|", "team-a/db.main@x|user"),
        ("|>images/>>dist<<:password<|", "s3cret"),
        ("$>HOME<$/x", "/root/x"),
        ("#>cpus*cores<#G", "8G"),
        ("#>cores/3<#", "1"),
        ("#>(cores + 1) * 1024<#", "5120"),
        ("E>'y' if '>>arch<<' == 'x86_64' else 'n'<E!", "y!"),
        ("aE>' b'<EE>' c'<Ed", "a b cd"),
        ("E>'<E' + 'x'<E", "<Ex"),
        ("E>>>major<< + 1<E", "10"),
        ("E>[1, 2][int('>>cores<<') - 3]<E", "2"),
        ("E>>>cores<<<E", "4"),
        (">>>>a_b<<", ">>nested"),
        (">>a_>>dist<<<<", None),
        ("no >>none<<.", "no ."),
        (">>no<<-", "False-"),
    ],
)
def test_markers_are_replaced(text: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(ConfigError, match="a_debian"):
            render(text)
    else:
        assert render(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "cat >>/tmp/x <<EOF", "(C>>1)) C=$((C<<3))", "a >> b << c", "<VALUE>1</VALUE><Entry>", "<h1>x</h1><1>", "2>&1",
        "$E>x <<EOF",
        "<E>text<E>", "x>y<z", "echo $A>x", ">>\n<<", ">>a\nb<<", ">><<", "|><|", "#><#", "[> x<]", "%>a b<%",
        "$>a-b<$", "", "plain",
    ],
)  # fmt: skip
def test_what_only_looks_like_a_marker_stays(text: str) -> None:
    assert render(text) == text


@pytest.mark.parametrize("method", list(Method))
def test_hash_markers_hash_secrets_and_defs(method: Method) -> None:
    assert render(f"{method}>images/linux:password<{method}") == crypt("s3cret", SALT, method)
    assert render(f"{method}>pw<{method}") == crypt("hunter2", SALT, method)
    assert render(f"x{method}>images/>>dist<<:password<{method}") == "x" + crypt("s3cret", SALT, method)


def test_a_marker_alone_keeps_its_type() -> None:
    for name in ("no", "zero", "none", "empty", "list", "table", "cores"):
        assert resolve(f">>{name}<<") == DEFS[name]
        assert resolve(f" %>{name}<% ") == DEFS[name]
    assert resolve("#>cores<#") == 4
    assert resolve("E>None<E") is None
    assert resolve("E>{'a': 1} if True else ''<E") == {"a": 1}


def test_list_markers_give_their_items() -> None:
    assert resolve(["x", "[>list<]", "y"]) == ["x", "a", "b", "y"]
    assert resolve({"k": "[>list<]", ">>dist<<": 1}) == {"k": ["a", "b"], "debian": 1}
    assert resolve(["[>empty<]"]) == []


def test_values_are_data() -> None:
    assert render("$>EVIL<$") == ">>arch<<E>1<E"
    assert render(">>sneaky<<") == ">>arch<<"
    assert render("E>'>>sneaky<<'<E") == ">>arch<<"
    assert render("E>sneaky + '>>sneaky<<'<E") == ">>arch<<>>arch<<"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a\n>>nothing<<", "not defined"),
        ("$>NOTHING<$", "not set"),
        ("*>nohost<*", "no address"),
        ("E>1 +<E", "wrong"),
        ("E>nothing<E", "not defined"),
        ("E>1 / 0<E", "zero"),
        ("#>dist<#", "number"),
        ("E>open('x')<E", "function"),
    ],
)
def test_errors_name_the_place(text: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        renderer().render(text, Place("file", 10))
    assert caught.value.where[0].path == "file"
    assert caught.value.where[0].line == 10 + text.count("\n")


hostile = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\U000f0000\U000f0001"), max_size=30
) | st.sampled_from(
    [
        "'",
        '"',
        "<E",
        ">>arch<<",
        "E>1<E",
        "$(id)",
        "`id`",
        "a\nb",
        "\\",
        "&amp;",
        "]]>",
        "'; rm -rf /; '",
        "#x",
        " x ",
        "%s",
        "-n",
    ]
)


@given(secret=hostile)
def test_secrets_come_out_as_they_are(secret: str) -> None:
    made = renderer(secret)
    for text in ("|>p:password<|", "E>'|>p:password<|'<E", "E>|>p:password<|<E"):
        assert made.render(text) == secret
    assert made.resolve_value("E>'|>p:password<|' == 'x' or len('|>p:password<|')<E") == (secret == "x" or len(secret))


@given(secret=hostile)
@example("\x85\u2028\ufeff\U0001f600")
def test_yaml_json_and_shell_get_hostile_values_back(secret: str) -> None:
    made = renderer(secret)
    assert yaml.safe_load(made.render("k: E>yaml('|>p:password<|')<E\n")) == {"k": secret}
    assert json.loads(made.render('{"k": E>json("|>p:password<|")<E}')) == {"k": secret}
    assert shlex.split(made.render("echo E>shell('|>p:password<|')<E")) == ["echo", secret]


@given(secret=hostile)
def test_xml_gets_hostile_values_back_or_refuses_them(secret: str) -> None:
    from osimager.config.escapes import escape_for

    made = renderer(secret)
    try:
        text = made.render("<a b='|>p:password<|'>|>p:password<|</a>", None, escape_for("autoyast"))
    except ConfigError:
        assert any(ord(character) < 32 or ord(character) in (0xFFFE, 0xFFFF) for character in secret)
        return
    root = ElementTree.fromstring(text)
    assert (root.text or "", root.get("b")) == (secret, secret)


@given(secret=hostile)
def test_preseed_and_kickstart_get_hostile_values_back_or_refuse_them(secret: str) -> None:
    made = renderer(secret)
    try:
        line = made.render("rootpw --plaintext E>kickstart('|>p:password<|')<E")
    except ConfigError:
        assert secret.splitlines() != [secret] or not secret.isprintable()
    else:
        # pykickstart: KickstartParser splits lines, then shlex.split(line, comments=True).
        assert len(line.splitlines()) == 1
        assert shlex.split(line, comments=True)[2:] == [secret]
    try:
        line = made.render("d-i passwd/x password E>preseed('|>p:password<|')<E")
    except ConfigError:
        assert secret.splitlines() != [secret] or not secret.isprintable() or secret[-1:] in "\\ " or secret[0] == " "
    else:
        assert line.split(" ", 3)[3] == secret


@pytest.mark.parametrize("secret", ["a'b\"c", "$(id)`id`", "a\nb", "\\", "-n", "*", "~", "!x", ""])
def test_a_real_shell_gets_hostile_values_back(secret: str) -> None:
    script = renderer(secret).render("printf %s E>shell('|>p:password<|')<E")
    assert subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout.decode() == secret


def test_a_value_with_a_line_break_cannot_slip_into_a_line() -> None:
    from osimager.config.escapes import escape_for

    with pytest.raises(ConfigError, match="line break"):
        renderer("x\nrootpw evil").render("rootpw |>p:password<|", Place("ks", 1), escape_for("kickstart"))


PIECES = (
    ">> << %> <% +> <+ *> <* |> <| #> <# $> <$ 1> <1 5> 6> <6 E> <E [> <] arch dist nothing ' \" < > / : HOME +1 ( )"
)
pieces = st.sampled_from([*PIECES.split(), "\n", " "])


@settings(max_examples=1000)
@given(text=st.lists(pieces, max_size=60).map("".join))
def test_any_text_parses_into_itself_or_is_an_error(text: str) -> None:
    try:
        parts = parse_template(text)
    except ConfigError:
        return
    rest = 0
    for part in parts:
        if isinstance(part, str):
            assert text[rest:].startswith(part)
            rest += len(part)
        else:
            assert part.at == rest
            rest += len(_source(part))
    assert rest == len(text)


def _source(marker: Marker) -> str:
    closers = {">": "<", "[": "]"}
    body = "".join(part if isinstance(part, str) else _source(part) for part in marker.body)
    return f"{marker.kind}{body}<{closers.get(marker.kind[0], marker.kind[0])}"


@settings(max_examples=20)
@given(
    opener=st.sampled_from([">>a", "E>'", "|>x", "6>>", "#>1", ">>", "E>>>a", "6>5>1>"]), count=st.integers(1000, 3000)
)
def test_long_hostile_texts_are_read_in_good_time(opener: str, count: int) -> None:
    text = opener * count
    assert "".join(part for part in parse_template(text) if isinstance(part, str)) == text


def test_all_wrong_markers_of_a_text_come_at_once() -> None:
    with pytest.raises(ConfigErrors) as caught:
        renderer().render("a >>nope<<\n>>arch<< E>1/0<E\n$>NOT_SET<$", Place("x", 5))
    assert [error.where[0].line for error in caught.value.errors] == [5, 6, 7]
