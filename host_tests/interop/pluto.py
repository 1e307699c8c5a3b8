"""libreswan's pluto beside strongSwan, whose packages exclude each other.

What apt would install is downloaded and unpacked under build/, never installed; pluto finds its
helpers there because its own mount namespace says so.
"""

import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from tools.dev.lab import GATEWAY_4, GATEWAY_ID, ROOT, LabError, own_prefix, run, wait_until

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

# ip netns exec gives a mount namespace of its own, so nobody else sees this. pluto starts its
# helpers with an empty environment: they find the unpacked libraries by the loader's cache. It
# says nothing of how they end, so addconn, which gives it its connections, does.
START = """
set -eu
home=$1 directory=$2
mount -t tmpfs none /usr/libexec
mkdir /usr/libexec/ipsec /usr/libexec/library /usr/libexec/unpacked
mount --bind "$home/{bin}" /usr/libexec/ipsec
mount --bind "$home/{bin}" /usr/libexec/unpacked
for libraries in "$home"/usr/lib/*-linux-gnu*; do
    mount --bind "$libraries" /usr/libexec/library
done
printf '/usr/libexec/library\\ninclude /etc/ld.so.conf\\n' >"$directory/ld.so.conf"
ldconfig -X -f "$directory/ld.so.conf" -C "$directory/ld.so.cache"
mount --bind "$directory/ld.so.cache" /etc/ld.so.cache
"$home/usr/bin/certutil" -N -d "sql:$directory/nss" --empty-password
cat >"$directory/addconn" <<'END'
#!/bin/sh
/usr/libexec/unpacked/addconn "$@"
echo "addconn ended with $?" >&2
END
chmod +x "$directory/addconn"
mount --bind "$directory/addconn" /usr/libexec/ipsec/addconn
exec /usr/libexec/ipsec/pluto --nofork --stderrlog --config "$directory/ipsec.conf" \\
    --rundir "$directory" --dumpdir "$directory" --nssdir "$directory/nss" \\
    --ipsecdir "$directory" --secretsfile "$directory/secrets"
""".format(bin=_BIN)

_ADDED = '"sensors": added IKEv2 connection'


def _complete(home):
    """Whether what is unpacked still finds its libraries: those of the system may have gone since."""
    library = ":".join(map(str, (home / "usr/lib").glob("*-linux-gnu*")))
    programs = [home / _BIN / "pluto", home / _BIN / "addconn", home / "usr/bin/certutil"]
    if not all(program.exists() for program in programs):
        return False
    return "not found" not in run("env", f"LD_LIBRARY_PATH={library}", "ldd", *programs)


def unpack():
    """Return the folder with libreswan in it; None and why not where it cannot be had."""
    HOME.parent.mkdir(exist_ok=True)
    with open(HOME.parent / "libreswan.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs at once: the second finds it done
        if _complete(HOME):
            return HOME, None
        shutil.rmtree(HOME, ignore_errors=True)
        return _unpack()


def _unpack():
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
        unpacked.rename(HOME)
    return HOME, None


class Pluto:
    """pluto in a namespace; ike and esp as libreswan writes them. `psk` is for everyone."""

    def __init__(self, namespace, psk, ike="aes128-sha2_256;dh31", esp="aes_ccm_a-128"):
        home, _ = unpack()
        self._namespace = namespace
        self.directory = directory = pathlib.Path(tempfile.mkdtemp(prefix=own_prefix("pluto")))
        try:
            (directory / "nss").mkdir()
            text = CONFIG.format(gateway=GATEWAY_4, identity=GATEWAY_ID, ike=ike, esp=esp)
            (directory / "ipsec.conf").write_text(text)
            secrets = os.open(directory / "secrets", os.O_WRONLY | os.O_CREAT, 0o600)
            with os.fdopen(secrets, "w") as file:
                file.write(f"@{GATEWAY_ID} %any : PSK {psk}\n")
            self._process = namespace.start("sh", "-c", START, "sh", home, directory)
            self.wait_log("addconn ended with")
            if _ADDED not in self.log():
                raise LabError(f"pluto has no connection:\n{self.log()[-3000:]}")
            wait_until(self._listens, 15, "pluto's port 4500")
        except LabError:
            shutil.rmtree(directory, ignore_errors=True)
            raise

    @property
    def pid(self):
        return self._process.pid

    def _listens(self):
        """Whether it has the port, whatever its version says of it."""
        return f"{GATEWAY_4}:4500" in self._namespace.run("ss", "-Hlun")

    def log(self):
        return "\n".join(self._process.lines)

    def wait_log(self, pattern, timeout=15):
        def found():
            running, log = self._process.running, self.log()
            if match := re.search(pattern, log):
                return match
            if not running:
                raise LabError(f"pluto ended:\n{log[-3000:]}")
            return None

        return wait_until(found, timeout, f"pluto's log: {pattern}")

    def stop(self):
        self._process.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
