# Licensed under the Apache License, version 2.0
"""The newest image of a target, out of osimager's registry file. Stands alone: the controller needs no osimager."""

from __future__ import annotations

DOCUMENTATION = """
name: image
author: The osimager engineers
version_added: 2.0.0
short_description: find the newest image of a target in osimager's registry
description:
  - Reads the registry file of osimager and gives the newest image of each target as a mapping,
    with its V(id), V(path), V(sha256) and all else that the registry says of it.
options:
  _terms:
    description:
      - The targets, short (V(debian-12), V(debian-12-aarch64)) or with platform and location.
    required: true
  registry:
    description: The registry file.
    type: path
    default: ~/.local/share/osimager/registry.yml
    vars: [{name: osimager_registry}]
    env: [{name: OSIMAGER_REGISTRY}]
  profile:
    description: The profile that the image was built with; none by default.
    type: str
    default: ""
    vars: [{name: osimager_profile}]
  arch:
    description: The architecture; may be left out where there are images of one only.
    type: str
    default: ""
    vars: [{name: osimager_arch}]
  firmware:
    description: The firmware; any by default.
    type: str
    choices: ["", bios, uefi]
    default: ""
    vars: [{name: osimager_firmware}]
  label:
    description: The label that the image carries; any by default.
    type: str
    default: ""
    vars: [{name: osimager_label}]
  statuses:
    description: How far the image may have come.
    type: list
    elements: str
    default: [built, verified, published]
    vars: [{name: osimager_statuses}]
"""

EXAMPLES = """
- ansible.builtin.debug:
    msg: "{{ lookup('osimager.registry.image', 'debian-12', arch='aarch64').path }}"
"""

RETURN = """
_raw:
  description: One mapping for each target.
  type: list
  elements: dict
"""

from pathlib import Path  # noqa: E402  Ansible wants its documentation first

import yaml  # noqa: E402
from ansible.errors import AnsibleError  # noqa: E402
from ansible.plugins.lookup import LookupBase  # noqa: E402

ARCHES = ("x86_64", "aarch64", "i386")
ARCH_NAMES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64", "i686": "i386", "x86": "i386"}


class LookupModule(LookupBase):
    """Ansible's side: options in, a list of mappings out."""

    def run(self, terms, variables=None, **kwargs):
        """Give the newest image of each of `terms`."""
        self.set_options(var_options=variables, direct=kwargs)
        registry = Path(self.get_option("registry")).expanduser()
        images = load_images(registry)
        wanted = {name: self.get_option(name) for name in ("firmware", "label") if self.get_option(name)}
        wanted["profile"] = self.get_option("profile")
        if arch := self.get_option("arch"):
            wanted["arch"] = ARCH_NAMES.get(arch, arch)
        return [find_image(images, term, wanted, self.get_option("statuses"), registry) for term in terms]


def load_images(registry):
    """Give the images of the registry file by id; none where the file is not there."""
    try:
        document = yaml.load(registry.read_text(encoding="utf-8"), _Loader)  # noqa: S506  a safe loader's subclass
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise AnsibleError(f"osimager's registry {registry} cannot be read: {exc}") from exc
    if not isinstance(document, dict) or document.get("version") != 1:
        raise AnsibleError(f"{registry} is no registry of osimager's version 1")
    return document.get("images") or {}


def find_image(images, target, wanted, statuses, registry):
    """Give the newest image of `target` that has every value of `wanted`. Raises AnsibleError."""
    names = {target, *(f"{target}-{arch}" for arch in ARCHES)}
    found = [
        {"id": image_id, **image}
        for image_id, image in images.items()
        if names & {image["target"], image["target"].rpartition("/")[2]}
        and all(image.get(key) == value for key, value in wanted.items())
        and image["status"] in statuses
    ]
    asked = " ".join([target, *filter(None, wanted.values())])
    if not found:
        raise AnsibleError(f"no image of '{asked}' is in {registry}: run `osimager build {target}`")
    arches = sorted({image["arch"] for image in found})
    if len(arches) > 1:
        raise AnsibleError(f"there are images of '{asked}' for {' and '.join(arches)}: set arch")
    # Times are all written alike, so they sort as text.
    newest = max(found, key=lambda image: (image["created"], image["id"]))
    if not Path(newest["path"]).is_file():
        raise AnsibleError(f"the image {newest['id']} is registered, but its file {newest['path']} is gone")
    return newest


class _Loader(yaml.SafeLoader):
    """The safe loader, but times stay texts."""

    yaml_implicit_resolvers = {  # noqa: RUF012  as PyYAML has it
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
