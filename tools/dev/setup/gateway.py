"""Make sure that strongSwan and the tools of the network laboratory are there.

`python tools/dev/setup/gateway.py` as root on Debian or Ubuntu installs what is
missing; elsewhere it says in one line what the interop tests lack, and exits 0
unless `--require` is given.
"""

import contextlib
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import debian

# Package -> a command that shows it is there. Plugins have no command.
PACKAGES = {
    "charon-systemd": None,
    "strongswan-swanctl": "swanctl",
    "libcharon-extra-plugins": None,  # kernel-libipsec
    "libstrongswan-standard-plugins": None,  # aesni (AES-CCM), openssl (x25519)
    "strongswan-pki": "pki",
    "iproute2": "ip",
    "nftables": "nft",
    "tshark": "tshark",
}


def packages():
    """On a CPU without AES-NI only the ccm plugin gives AES-CCM; it drags in much more."""
    flags = pathlib.Path("/proc/cpuinfo").read_text()
    extra = {} if " aes " in flags else {"libstrongswan-extra-plugins": None}
    return {**PACKAGES, **extra}


MOUNTS = pathlib.Path("/proc/self/mountinfo")
_PLAIN_CHROOT = (
    "/ is no mount point, as in a plain chroot, and `ip netns exec` needs one:"
    " outside of it, mount --bind DIRECTORY DIRECTORY"
)


def _plain_chroot():
    with contextlib.suppress(OSError):
        return all(line.split()[4] != "/" for line in MOUNTS.read_text().splitlines())


def lacking():
    """Return None when interop tests can run here, else one line that says why not."""
    if not sys.platform.startswith("linux"):
        return "interop needs Linux network namespaces"
    if os.geteuid() != 0:
        return "interop needs root (network namespaces)"
    if not os.path.exists("/dev/net/tun"):
        return "interop needs /dev/net/tun"
    if _plain_chroot():
        return f"interop: {_PLAIN_CHROOT}"
    try:
        gone = debian.missing(packages())
    except FileNotFoundError:  # no dpkg
        gone = [
            name
            for name, command in PACKAGES.items()
            if command and not debian.shutil.which(command)
        ]
    return f"interop needs the packages {' '.join(gone)}" if gone else None


def ensure():
    """Install, or raise `debian.Missing` with what to do."""
    if os.geteuid() != 0:
        raise debian.Missing("root is needed for network namespaces and strongSwan")
    if not os.path.exists("/dev/net/tun"):
        raise debian.Missing("/dev/net/tun is missing: modprobe tun, or give it to the container")
    if _plain_chroot():
        raise debian.Missing(_PLAIN_CHROOT)
    debian.ensure(packages(), why="strongSwan for interop")


if __name__ == "__main__":
    try:
        ensure()
    except debian.Missing as problem:
        print(f"setup: {problem}", file=sys.stderr)
        raise SystemExit(2 if "--require" in sys.argv else 0)
