"""What the configuration asks of the outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from osimager.build.lookups import HostLookups
from osimager.config.lookups import Lookups
from osimager.errors import ConfigError
from osimager.paths import Places
from osimager.redact import MASK, Masker


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places.from_environment({"OSIMAGER_HOME": str(tmp_path)})


def test_secrets_come_from_where_the_settings_say_and_are_masked(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    places.config.mkdir()
    (places.config / "config.yml").write_text("secrets: {source: env}\n")
    monkeypatch.setenv("OSIMAGER_SECRET_IMAGES_LINUX_PASSWORD", "hunter22")
    masker = Masker()
    lookups: Lookups = HostLookups(places, masker, offline=False)
    assert lookups.secret("images/linux", "password") == "hunter22"
    assert masker.mask("hunter22") == MASK
    with pytest.raises(ConfigError, match="OSIMAGER_SECRET_IMAGES_BSD_PASSWORD"):
        lookups.secret("images/bsd", "password")


def test_offline_no_server_is_asked(places: Places) -> None:
    with pytest.raises(ConfigError, match="offline"):
        HostLookups(places, Masker(), offline=True).dns("web.example", ["127.0.0.1:9"], [])


def test_an_address_is_its_own_answer(places: Places) -> None:
    assert HostLookups(places, Masker(), offline=False).dns("192.0.2.7", [], []) == "192.0.2.7"
