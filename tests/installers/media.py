"""ISOs as Red Hat, AlmaLinux and Fedora make them: names, menus and loaders of theirs, a test installer inside.

The recipe `el` makes what they have in common, once; a product is a copy of that with its own volume id and menus, in
the form of Lorax's templates (the vendors' own menus are in tests/unit/media/menus). Both are kept in OSIMAGER_HOME:

    OSIMAGER_HOME=.test-home .venv/bin/python -m tests.installers.media rhel-9.5 x86_64
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from osimager import kept
from osimager.aio import in_thread
from osimager.arch import Arch
from osimager.config.catalog import Catalog, Roots
from osimager.env import Env
from osimager.events import Bus
from osimager.media.made import make_iso
from osimager.paths import Places, shipped
from osimager.plan.model import MadeMedium
from osimager.proc import run_tool
from osimager.redact import Masker

INSTALLERS = Path(__file__).parent
MENUS = INSTALLERS / "menus"
TOOLS = ("mmdebstrap", "xorriso", "grub-mkimage", "implantisomd5", "mkfs.fat", "mcopy")
DEADLINE_S = 600.0


@dataclass(frozen=True)
class Product:
    """What a vendor writes on its medium. `grub_only`: its BIOS boots GRUB too (Lorax 40), not ISOLINUX."""

    family: str
    title: str
    version: str
    volume_id: str
    grub_only: bool

    @property
    def values(self) -> dict[str, str]:
        """Give what the menus and notes of a medium have in the place of @name@."""
        return {"family": self.family, "title": self.title, "version": self.version, "volume_id": self.volume_id}


def find_product(target: str, arch: Arch) -> Product:
    """Give the product of `rhel-9.5`, `alma-9.6`, `fedora-43`, with the volume id that its vendor gives it."""
    dist, _, version = target.partition("-")
    major = int(version.partition(".")[0])
    dashed = version.replace(".", "-")
    match dist:
        case "rhel":
            name, label = "Red Hat Enterprise Linux", f"RHEL-{dashed}-0-BaseOS-{arch}"
        case "alma":
            name, label = "AlmaLinux", f"AlmaLinux-{dashed}-{arch}-dvd"
        case "fedora":
            name, label = "Fedora", f"Fedora-S-dvd-{arch}-{version}"
        case _:
            raise ValueError(f"no product is known for {target}")
    return Product(name, f"{name} {version}", version, label, grub_only=major >= (37 if dist == "fedora" else 10))


def vendors_filename(target: str, arch: Arch) -> str:
    """Give the name under which the catalogue looks for the target's ISO on this host."""
    catalog = Catalog.open(Roots(specs=(shipped("specs"),), files=(shipped("files"),), isos=(shipped("isos.d"),)))
    entry = catalog.find_iso(target, arch)
    assert entry is not None
    return entry.urls[0].rpartition("/")[2] if entry.urls else entry.patterns[0].replace("*", "")


def product_iso(target: str, arch: Arch, home: Path) -> Path:
    """Give the ISO of the target's product, found under `home`, else made now."""
    places = Places.from_environment({**os.environ, "OSIMAGER_HOME": str(home)})
    masker = Masker()
    bus = Bus(now=lambda: datetime.now(UTC), masker=masker, build="installers")
    env = Env(places=places, workspace=kept.make_folder(places.cache / "work"), bus=bus, masker=masker)
    return asyncio.run(_make_product(find_product(target, arch), arch, env))


async def _make_product(product: Product, arch: Arch, env: Env) -> Path:
    base = await _make_base(arch, env)
    digest = _digest(base, product)
    path = base.with_name(f"{product.volume_id}-{digest}.iso")
    if not path.is_file():
        with tempfile.TemporaryDirectory(prefix="osimager-product-") as folder, kept.publishing(path) as partial:
            await _write_product(product, arch, base, Path(folder), partial)
        for stale in {*path.parent.glob(f"{product.volume_id}-*.iso"), *base.parent.glob(f"el-{arch}-*.iso")} - {
            path,
            base,
        }:
            stale.unlink()
    return path


def _digest(base: Path, product: Product) -> str:
    """Give what decides how the copy looks: the base's own digest, the menus, the product."""
    digest = hashlib.sha256(f"{base.name}\0{product}".encode())
    for file in (*sorted(MENUS.iterdir()), Path(__file__)):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


async def _make_base(arch: Arch, env: Env) -> Path:
    """Make the recipe's ISO, with this Python's pykickstart in it (found, not imported: it is GPL)."""
    found = importlib.util.find_spec("pykickstart")
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).parent
    with tempfile.TemporaryDirectory(prefix="osimager-recipe-") as name:
        folder = Path(name)

        def copy() -> None:
            shutil.copytree(INSTALLERS / "common", folder / "common")
            shutil.copytree(INSTALLERS / "el", folder / "el", ignore=shutil.ignore_patterns("__pycache__"))
            unwanted = shutil.ignore_patterns("__pycache__", "locale", "tools")
            shutil.copytree(package, folder / "el" / "pykickstart", ignore=unwanted)

        await in_thread(copy)
        return await make_iso(MadeMedium(recipe="el", folder=folder / "el"), env, arch=arch)


async def _write_product(product: Product, arch: Arch, base: Path, folder: Path, out: Path) -> None:
    """Write the copy of `base` with the product's menus, its loader for UEFI among them, and its own check sum."""
    efi = next(name for key, name in (("x86_64", "BOOTX64.EFI"), ("aarch64", "BOOTAA64.EFI")) if key == arch)
    await run_tool(
        ["xorriso", "-osirrox", "on", "-indev", base, "-extract", f"/EFI/BOOT/{efi}", folder / efi],
        deadline_s=DEADLINE_S,
    )
    menu = "grub-10.cfg" if product.grub_only else "grub-9.cfg"
    files = {
        "/EFI/BOOT/grub.cfg": render_menu(menu if arch is Arch.X86_64 else "grub-10.cfg", product, arch),
        "/.treeinfo": render_menu("treeinfo", product, arch),
        "/.discinfo": render_menu("discinfo", product, arch),
        "/media.repo": render_menu("media.repo", product, arch),
    }
    boot: list[str | Path] = []
    if arch is Arch.X86_64 and product.grub_only:
        files["/boot/grub2/grub.cfg"] = files["/EFI/BOOT/grub.cfg"]
        boot = ["-rm_r", "/isolinux", "--", "-boot_image", "grub", "bin_path=/images/eltorito.img"]
        boot += ["-boot_image", "grub", "boot_info_table=on"]
    elif arch is Arch.X86_64:
        files["/isolinux/isolinux.cfg"] = render_menu("isolinux.cfg", product, arch)
        boot = ["-rm", "/images/eltorito.img", "--", "-boot_image", "isolinux", "bin_path=/isolinux/isolinux.bin"]
        boot += ["-boot_image", "isolinux", "boot_info_table=on"]
    await _make_efi_image(folder / "efiboot.img", folder / efi, files["/EFI/BOOT/grub.cfg"])
    maps: list[str | Path] = ["-map", folder / "efiboot.img", "/images/efiboot.img"]
    for name, text in files.items():
        own = folder / name.strip("/").replace("/", "_")
        own.write_text(text)
        maps += ["-map", own, name]
    # The next boot image's settings do not touch the one before.
    boot += ["-boot_image", "any", "next"] if boot else []
    boot += ["-boot_image", "any", "efi_path=/images/efiboot.img", "-boot_image", "any", "platform_id=0xef"]
    # xorriso appends to what it finds, and the partial file is there already.
    out.unlink(missing_ok=True)
    await run_tool(
        ["xorriso", "-indev", base, "-outdev", out, "-volid", product.volume_id, *maps, *boot], deadline_s=DEADLINE_S
    )
    await run_tool(["implantisomd5", "--force", out], deadline_s=DEADLINE_S)


async def _make_efi_image(image: Path, loader: Path, menu: str) -> None:
    """Make the file system that UEFI starts from, as Lorax does: the loader with its menu beside it."""
    config = image.with_name("grub.cfg")
    config.write_text(menu)
    await run_tool(["mkfs.fat", "-C", image, "4096"], deadline_s=DEADLINE_S)
    await run_tool(["mmd", "-i", image, "::EFI", "::EFI/BOOT"], deadline_s=DEADLINE_S)
    await run_tool(["mcopy", "-i", image, loader, config, "::EFI/BOOT"], deadline_s=DEADLINE_S)


def render_menu(name: str, product: Product, arch: Arch) -> str:
    """Give a file of menus/ with the product's names in it."""
    values = {**product.values, "arch": str(arch)}
    return re.sub(r"@(\w+)@", lambda match: values[match[1]], (MENUS / name).read_text())


if __name__ == "__main__":
    print(product_iso(sys.argv[1], Arch(sys.argv[2]), Path(os.environ["OSIMAGER_HOME"]).absolute()))
