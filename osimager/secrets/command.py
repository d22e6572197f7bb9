"""Secrets from a program that prints them: `pass`, `op`, `gopass`, `secret-tool`, `security`, one's own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from osimager.config.settings import CommandSettings
from osimager.errors import ConfigError
from osimager.proc import Completed, run_tool
from osimager.secrets.provider import NoSuchSecret

_HINT = "run it by hand, and see secrets.command in config.yml"


class CommandSecrets:
    """Ask a program for each secret. No shell reads its words; its standard output is the secret."""

    def __init__(self, settings: CommandSettings, environ: Mapping[str, str]) -> None:
        if not settings.argv:
            hint = 'write secrets: {command: {argv: [pass, show, "{path}/{key}"]}} in config.yml'
            raise ConfigError("secrets come from a command, and none is given", hint=hint)
        self._settings = settings
        self._environ = environ

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"the command {self._settings.argv[0]!r}"

    def read(self, path: str, key: str | None) -> str:
        """Run the program and give what it prints, the last line end left out.

        Raises NoSuchSecret where it prints nothing, ConfigError where it fails or does not end, PrerequisiteError
        where it is not installed.
        """
        done = self._run([word.replace("{path}", path).replace("{key}", key or "") for word in self._settings.argv])
        if done.status != 0:
            said = "" if done.stdout else _last_line(done.stderr)
            raise ConfigError(f"{self.name} exited with status {done.status}{said}", hint=_HINT)
        try:
            text = done.stdout.decode()
        except UnicodeDecodeError:
            raise ConfigError(f"{self.name} did not print UTF-8", hint=_HINT) from None
        text = text.removesuffix("\n").removesuffix("\r")
        if not text:
            raise NoSuchSecret(f"{self.name} printed nothing{_last_line(done.stderr)}", hint=_HINT)
        return text

    def _run(self, argv: list[str]) -> Completed:
        timeout_s = self._settings.timeout_s
        passed = {name: self._environ[name] for name in self._settings.environment if name in self._environ}

        async def run() -> Completed:
            return await run_tool(argv, deadline_s=timeout_s, check=False, environment=passed)

        try:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                return asyncio.run(run())
            # Inside a running loop only another thread can wait for one.
            with ThreadPoolExecutor(1) as thread:
                return thread.submit(asyncio.run, run()).result()
        except TimeoutError:
            raise ConfigError(f"{self.name} did not end within {timeout_s:g} s", hint=_HINT) from None


def _last_line(stderr: str) -> str:
    lines = stderr.strip().splitlines()
    return f": {lines[-1]}" if lines else ""
