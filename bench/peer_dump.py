"""What OSImager 1.x makes of every target of its data tree, as JSON lines: run it with *that* package's Python.

    HOME=… PYTHON bench/peer_dump.py TEMP_DIR [NAME IP] > peer.jsonl

One process for all targets; look-ups and salts are made repeatable (no DNS answer, one fixed salt), nothing else.
"""

from __future__ import annotations

import contextlib
import crypt  # type: ignore[import-not-found,unused-ignore]  # the peer runs on Python 3.11
import importlib
import io
import json
import sys
from pathlib import Path
from typing import Any

SALT = "saltsaltsaltsalt"


def repeatable(core: Any, utils: Any) -> None:
    """Take chance and the network out of the peer."""
    core.get_ip = utils.get_ip = lambda *_args, **_kwargs: None
    prefixes = {"md5": "$1$" + SALT[:8], "sha256": "$5$" + SALT, "sha512": "$6$" + SALT}
    hashed: dict[tuple[str, str], str] = {}

    def hash_password(password: str, method: str) -> str:
        if (password, method) not in hashed:
            hashed[password, method] = crypt.crypt(password, prefixes[method])
        return hashed[password, method]

    utils.hash_password = hash_password


def pairs(index: dict[str, Any], base: Path, platforms: list[str]) -> list[tuple[str, str]]:
    """Choose platform and target: each target on qemu or its first platform, each spec's ends on every platform."""
    chosen: dict[tuple[str, str], None] = {}
    by_spec: dict[str, list[str]] = {}
    for key, entry in index.items():
        by_spec.setdefault(entry["path"], []).append(key)
    for path, keys in by_spec.items():
        allowed = supported(json.loads(Path(path).read_text()), base) or platforms
        first = "qemu" if "qemu" in allowed else allowed[0]
        for key in keys:
            chosen[first, key] = None
        for platform in platforms:
            if platform in allowed:
                chosen[platform, keys[0]] = chosen[platform, keys[-1]] = None
    return list(chosen)


def supported(spec: dict[str, Any], base: Path) -> list[str] | None:
    """Give the platforms that a spec, or the one it includes, names."""
    while spec.get("platforms") is None and isinstance(spec.get("include"), str):
        spec = json.loads((base / "specs" / spec["include"] / "spec.json").read_text())
    return spec.get("platforms")


def dump(core: Any, index: dict[str, Any], target: str, temp: Path, host: list[str]) -> dict[str, Any]:
    """Resolve one target in the peer, generated files included."""
    for old in temp.iterdir():
        old.unlink()
    said = io.StringIO()
    imager = None
    with contextlib.redirect_stdout(said):
        try:
            imager = core.OSImager(argv=["-x", "-m", str(temp), target], which="full")
            imager.make_index = lambda: index
            with contextlib.suppress(SystemExit):
                imager.make_build(target, *host)
            if not hasattr(imager, "build"):
                raise RuntimeError("no build")
        except (Exception, SystemExit) as exc:
            return {"target": target, "error": f"{type(exc).__name__}: {exc}", "said": said.getvalue()[-500:]}
        files_error = ""
        try:
            imager.gen_files()
        except (Exception, SystemExit) as exc:
            files_error = f"{exc} {said.getvalue()[-120:]}"
    files = {path.name: path.read_text() for path in sorted(temp.iterdir())}
    result = {"target": target, "defs": imager.defs, "build": imager.build, "evars": imager.evars}
    return {**result, "files": files, "files_error": files_error}


def main() -> None:
    """Dump every chosen target."""
    temp = Path(sys.argv[1])
    temp.mkdir(parents=True, exist_ok=True)
    del sys.path[0]
    core, utils = importlib.import_module("osimager.core"), importlib.import_module("osimager.utils")
    repeatable(core, utils)
    with contextlib.redirect_stdout(io.StringIO()):
        first = core.OSImager(argv=["--list"], which="full")
        index = first.get_index()
        platforms = [platform["name"] for platform in first.get_platforms()]
    for platform, key in pairs(index, Path(first.system_data_dir), platforms):
        print(json.dumps(dump(core, index, f"{platform}/lab/{key}", temp, sys.argv[2:4])))


if __name__ == "__main__":
    main()
