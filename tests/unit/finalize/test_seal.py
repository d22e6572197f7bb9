"""The seal's script, run for real: in a chroot on an overlay of this host's own system, whose files stay untouched."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from osimager.env import Env
from osimager.errors import ProvisionError
from osimager.events import Event, OutputLine
from osimager.finalize.seal import Sealed, read_seal_script, seal
from osimager.plan.model import SealMode, SealPlan

pytestmark = pytest.mark.needs("unshare", "useradd", "chroot", "ssh-keygen")

# A small machine: the build's account, a person's, and what installers and clouds leave.
_PREPARE = """set -e
PATH=$PATH:/usr/sbin:/sbin
rm -f /etc/ssh/ssh_host_* /etc/machine-id
rm -rf /home/* /root/.ssh
useradd -m -p '$6$salt$buildhash' osimager
useradd -m -p '$6$salt$personhash' person
mkdir -p /root/.ssh /home/osimager/.ssh /home/person/.ssh /etc/sudoers.d /var/log/installer /var/lib/cloud/instance
mkdir -p /var/lib/dhcp /var/lib/systemd /etc/cloud/cloud.cfg.d /etc/network /var/cache/debconf
echo 'ssh-ed25519 AAAA osimager-build' >/root/.ssh/authorized_keys
echo 'ssh-ed25519 AAAA osimager-build' >/home/osimager/.ssh/authorized_keys
printf 'ssh-ed25519 PPPP person\\nssh-ed25519 AAAA osimager-build\\n' >/home/person/.ssh/authorized_keys
echo 'osimager ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/osimager-build
echo 'person ALL=(ALL) ALL' >/etc/sudoers.d/person
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
echo myhost >/etc/hostname
ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
echo secret >/root/anaconda-ks.cfg
echo secret >/var/log/installer/preseed
echo 'Value: secret' >/var/cache/debconf/passwords.dat
echo lease >/var/lib/dhcp/dhclient.leases
echo seed >/var/lib/systemd/random-seed
echo ls >/root/.bash_history
echo said >/var/log/messages
"""

_CHROOT = """set -e
mount -t tmpfs none "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root" || exit 77
mount --rbind /dev "$1/root/dev"
mount -t proc none "$1/root/proc"
for folder in tmp var/tmp var/log var/cache; do mount -t tmpfs none "$1/root/$folder"; done
cat >"$1/root/seal-test"
chroot "$1/root" sh /seal-test
"""


class Chroot:
    """ports.Communicator, as far as the seal needs it: `after` runs in the same system when the script has ended."""

    def __init__(self, folder: Path, *, before: str = "", after: str = "true") -> None:
        self._folder, self._before, self._after = folder, before, after
        self.after_said = ""

    async def run(
        self,
        script: str,
        *,
        on_line: Callable[[str], None] | None = None,
        environment: Mapping[str, str] | None = None,
        deadline_s: float,
        settle: bool = False,
    ) -> int:
        # Outside of the namespace fstrim and sync would reach the host's disks.
        script = script.replace("\nsync\n", "\n").replace("fstrim -a", "true")
        text = f"{_PREPARE}\n{self._before}\nsh -s <<'SEAL' >/said\n{script}\nSEAL\nstatus=$?\nset +e\n"
        text = text.replace("sh -s <<", "set +e\nsh -s <<")
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", _CHROOT, "sh", str(self._folder)],
            input=f"{text}\ncat /said\necho STATUS $status\n({self._after}) 2>&1\n",
            capture_output=True,
            text=True,
            env={**os.environ, **(environment or {})},
            check=False,
        )
        if done.returncode == 77 or "STATUS" not in done.stdout:
            pytest.skip(f"no overlay can be mounted here: {done.stderr.strip()}")
        said, _, rest = done.stdout.partition("STATUS ")
        status, _, self.after_said = rest.partition("\n")
        for line in said.splitlines():
            assert on_line is not None
            on_line(line)
        return int(status)

    async def get_ready(self) -> None:
        raise NotImplementedError

    async def read(self, script: str, *, deadline_s: float) -> str:
        raise NotImplementedError

    async def put(self, content: bytes, path: str, *, mode: int, deadline_s: float) -> None:
        raise NotImplementedError

    async def get(self, path: str, *, deadline_s: float, limit_bytes: int) -> bytes:
        raise NotImplementedError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if os.geteuid() != 0:
        pytest.skip("needs root, for a mount namespace")
    return tmp_path


_LOOK = """
for path in /etc/machine-id /etc/ssh/ssh_host_ed25519_key /etc/hostname /root/anaconda-ks.cfg /var/log/installer \
    /home/osimager /home/person /etc/sudoers.d/person /var/lib/dhcp/dhclient.leases /root/.bash_history \
    /var/lib/systemd/random-seed /root/.ssh/authorized_keys; do
    if [ -s "$path" ] || [ -d "$path" ]; then echo "has $path"; fi
done
cat /etc/hostname /home/person/.ssh/authorized_keys /var/log/messages /var/cache/debconf/passwords.dat
grep -l buildhash -r /etc
grep -c personhash /etc/shadow
"""


async def test_template_loses_its_identity_and_keeps_its_people(env: Env, folder: Path) -> None:
    guest = Chroot(folder, after=_LOOK)
    sealed = await seal(SealPlan(SealMode.TEMPLATE, "osimager"), guest, env, deadline_s=60)
    assert sealed.machine_id == "0123456789abcdef0123456789abcdef"
    assert len(sealed.host_keys) == 1
    assert "person (password)" in sealed.logins
    assert "/home/person/.ssh/authorized_keys" in sealed.logins
    assert not any("osimager" in login for login in sealed.logins)
    assert guest.after_said.splitlines() == [
        "has /etc/hostname",
        "has /home/person",
        "has /etc/sudoers.d/person",
        "localhost",
        "ssh-ed25519 PPPP person",
        "1",
    ]


async def test_machine_keeps_its_identity_and_loses_the_build(env: Env, folder: Path) -> None:
    guest = Chroot(folder, after=_LOOK)
    await seal(SealPlan(SealMode.MACHINE, "osimager"), guest, env, deadline_s=60)
    assert guest.after_said.splitlines() == [
        "has /etc/machine-id",
        "has /etc/ssh/ssh_host_ed25519_key",
        "has /etc/hostname",
        "has /home/person",
        "has /etc/sudoers.d/person",
        "has /var/lib/dhcp/dhclient.leases",
        "myhost",
        "ssh-ed25519 PPPP person",
        "1",
    ]


async def test_account_that_the_configuration_names_stays_without_the_builds_key(env: Env, folder: Path) -> None:
    guest = Chroot(folder, after="grep -c '^person:' /etc/passwd; cat /home/person/.ssh/authorized_keys")
    sealed = await seal(SealPlan(SealMode.TEMPLATE, "person", remove_build_user=False), guest, env, deadline_s=60)
    assert guest.after_said.splitlines() == ["1", "ssh-ed25519 PPPP person"]
    assert isinstance(sealed, Sealed)


async def test_what_cannot_be_removed_is_named(env: Env, folder: Path, events: list[Event]) -> None:
    before = "echo 'osimager ALL=(ALL) ALL' >/etc/sudoers.d/forgotten"
    with pytest.raises(ProvisionError, match=r"could not remove rights of osimager in /etc/sudoers\.d/forgotten"):
        await seal(SealPlan(SealMode.TEMPLATE, "osimager"), Chroot(folder, before=before), env, deadline_s=60)
    assert OutputLine("seal", "left rights of osimager in /etc/sudoers.d/forgotten") in events


async def test_key_and_account_that_come_back_are_named(env: Env, folder: Path) -> None:
    """What cannot be changed stays, and is found in the files themselves (a copy of the build's key, here)."""
    before = "echo 'ssh-ed25519 AAAA osimager-build' >/root/.ssh/authorized_keys2"
    with pytest.raises(ProvisionError, match=r"the build's key in /root/\.ssh/authorized_keys2"):
        await seal(SealPlan(SealMode.TEMPLATE, "osimager"), Chroot(folder, before=before), env, deadline_s=60)
    # An account of which only the password's hash is left, as a tool that failed half-way leaves it.
    before = "sed -i /^osimager:/d /etc/passwd"
    with pytest.raises(ProvisionError, match="the account osimager in /etc/shadow"):
        await seal(SealPlan(SealMode.TEMPLATE, "osimager"), Chroot(folder, before=before), env, deadline_s=60)


async def test_hosts_loses_the_name_that_the_installer_gave_and_nothing_else(env: Env, folder: Path) -> None:
    before = "printf '127.0.0.1 localhost\\n127.0.1.1 myhost\\n10.0.0.1 a b\\\\c' >/etc/hosts"
    guest = Chroot(folder, before=before, after="cat /etc/hosts")
    await seal(SealPlan(SealMode.TEMPLATE, "osimager"), guest, env, deadline_s=60)
    assert guest.after_said == "127.0.0.1 localhost\n10.0.0.1 a b\\c\n"


@pytest.mark.needs("shellcheck")
def test_script_is_clean(tmp_path: Path) -> None:
    script = tmp_path / "seal.sh"
    script.write_text(read_seal_script())
    subprocess.run(["shellcheck", script], check=True)
