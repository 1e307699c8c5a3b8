"""libreswan's pluto beside strongSwan, whose packages exclude each other.

What apt would install is downloaded and unpacked under build/, never installed; pluto finds its
helpers there because its own mount namespace says so.
"""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from host_tests.lab import GATEWAY_4, GATEWAY_ID, ROOT, LabError, run, wait_until

HOME = ROOT / "build/libreswan"
_BIN = "usr/libexec/ipsec"

CONFIG = """
config setup
    ikev1-policy=drop

conn sensors
    ikev2=insist
    authby=secret
    left={gateway}
    leftid=@{identity}
    leftsubnet=10.3.0.0/16
    right=%any
    rightaddresspool=10.9.0.1-10.9.0.200
    narrowing=yes
    ike={ike}
    esp={esp}
    encapsulation=yes
    auto=add
"""

# ip netns exec gives a mount namespace of its own, so nobody else sees this.
START = """
set -e
mount -t tmpfs none /usr/libexec
mkdir /usr/libexec/ipsec
mount --bind {home}/{bin} /usr/libexec/ipsec
exec /usr/libexec/ipsec/pluto --nofork --stderrlog --config {directory}/ipsec.conf \
    --rundir {directory} --dumpdir {directory} --nssdir {directory}/nss \
    --ipsecdir {directory} --secretsfile {directory}/secrets
"""


def unpack():
    """Return the folder with libreswan in it; None and why not where it cannot be had."""
    if (HOME / _BIN / "pluto").exists():
        return HOME, None
    HOME.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HOME.parent) as place:
        archives = pathlib.Path(place) / "archives"
        (archives / "partial").mkdir(parents=True)
        command = ["apt-get", "-y", "-qq", "--no-install-recommends", "--download-only"]
        command += ["-o", f"Dir::Cache::archives={archives}", "install", "libreswan"]
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                subprocess.run(["apt-get", "-qq", "update"], check=False, capture_output=True)
                done = subprocess.run(command, check=False, capture_output=True, text=True)
        except FileNotFoundError:
            return None, "libreswan is unpacked from Debian's packages, and there is no apt-get"
        packages = sorted(archives.glob("*.deb"))
        if done.returncode or not packages:
            return None, f"libreswan cannot be downloaded: {done.stderr.strip()[-200:]}"
        unpacked = pathlib.Path(place) / "root"
        for package in packages:
            run("dpkg", "-x", package, unpacked)
        if not HOME.exists():  # by another run at the same time
            unpacked.rename(HOME)
    return HOME, None


class Pluto:
    """pluto in a namespace; ike and esp as libreswan writes them. `psk` is for everyone."""

    def __init__(self, namespace, psk, ike="aes128-sha2_256;dh31", esp="aes_ccm_a-128"):
        home, _ = unpack()
        (library,) = (home / "usr/lib").glob("*-linux-gnu*")
        environment = {"LD_LIBRARY_PATH": str(library)}
        self.directory = directory = pathlib.Path(tempfile.mkdtemp(prefix="mips-pluto-"))
        try:
            (directory / "nss").mkdir()
            run("env", f"LD_LIBRARY_PATH={library}", home / "usr/bin/certutil", "-N",
                "-d", f"sql:{directory}/nss", "--empty-password")  # fmt: skip
            text = CONFIG.format(gateway=GATEWAY_4, identity=GATEWAY_ID, ike=ike, esp=esp)
            (directory / "ipsec.conf").write_text(text)
            secrets = os.open(directory / "secrets", os.O_WRONLY | os.O_CREAT, 0o600)
            with os.fdopen(secrets, "w") as file:
                file.write(f"@{GATEWAY_ID} %any : PSK {psk}\n")
            start = START.format(home=home, bin=_BIN, directory=directory)
            self._process = namespace.start("sh", "-c", start, env=environment)
            self.wait_log(r'"sensors": added IKEv2 connection')
            self.wait_log(rf"adding UDP interface \S+ {re.escape(GATEWAY_4)}:4500")
        except LabError:
            shutil.rmtree(directory, ignore_errors=True)
            raise

    def log(self):
        return "\n".join(self._process.lines)

    def wait_log(self, pattern, timeout=15):
        def found():
            if not self._process.running:
                raise LabError(f"pluto ended:\n{self.log()[-3000:]}")
            return re.search(pattern, self.log())

        return wait_until(found, timeout, f"pluto's log: {pattern}")

    def stop(self):
        self._process.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
