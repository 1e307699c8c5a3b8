"""`make fresh`: what a newcomer does, in a Debian that has only ca-certificates, git, make, python3.

The repository, as it is committed, is cloned there into a folder that only its owner enters, with
a blank in its path. `make demo` and a share of `make test` run in the clone, as root with
strongSwan, then as a user who owns a clone of his own.

The root is made once by debootstrap and kept with what apt, pip and npm download, in
~/.cache/minipsec; each run works in a copy of it, so that everything is installed anew.
"""

import argparse
import contextlib
import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools/dev/setup"))

import debian

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "minipsec"
PACKAGES = ("ca-certificates", "git", "make", "python3")
CLONE = "a folder/minipsec"  # below the home of who runs it

# Suite -> what of the tests runs there: where places, versions and missing libraries show first, in
# four minutes for both. What tells the one Debian from the other is asked of both.
_BOTH = (
    "host_tests/dev/test_setup.py",
    "host_tests/dev/test_demo.py",
    "host_tests/dev/footprint/test_interpreter.py",
    "host_tests/interop/test_lab.py",
    "host_tests/interop/test_libreswan.py",
)
SHARES = {
    "bookworm": ("host_tests/dev/test_bench_asm.py", *_BOTH),
    "trixie": (
        "host_tests/rules/test_on_micropython.py",
        "host_tests/interop/test_charon.py",
        "host_tests/ike/test_tshark.py",
        *_BOTH,
    ),
}
AS_USER = ("host_tests/dev/test_setup.py", "host_tests/board/test_selftest.py")

# How this machine reaches the registries holds inside, too.
_PASSED_ON = re.compile(r"(https?|no|all|ftp)_proxy|pip_.*|npm_config_.*|ssl_cert_.*|node_extra_ca_certs|"
                        r"git_ssl_cainfo", re.I)  # fmt: skip

# $1 is the root, $2 the cache; the rest runs inside. `ip netns exec` needs
# a / that is a mount point.
_ENTER = """
root=$1 cache=$2
shift 2
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t proc proc "$root/proc"
mount -t tmpfs none "$root/run"
mount --bind "$cache/archives" "$root/var/cache/apt/archives"
mkdir -p "$root/root/.cache" "$root/root/.npm"
mount --bind "$cache/cache" "$root/root/.cache"
mount --bind "$cache/npm" "$root/root/.npm"
exec chroot "$root" "$@"
"""

_AS_ROOT = """
mkdir -p "$(dirname "$1")"
chmod 700 ~
git -c init.defaultBranch=main -c advice.detachedHead=false clone -q /mnt/minipsec.bundle "$1"
cd "$1"
make demo READINGS=3
make demo READINGS=3 GATEWAY=strongswan
make test ARGS="$2"
"""
_AS_USER = """
useradd -m someone
chmod 700 /home/someone
exec setpriv --reuid=someone --regid=someone --init-groups env HOME=/home/someone sh -euc '
mkdir -p "$(dirname "$1")"
git -c init.defaultBranch=main -c advice.detachedHead=false clone -q /mnt/minipsec.bundle "$1"
cd "$1"
make demo READINGS=3
make test ARGS="$2"
' sh "$1" "$2"
"""


class CannotRun(Exception):
    """No such root can be made on this machine; the text is one line that says why."""


def base(suite):
    """Return the root of a suite as debootstrap left it, made when it is not kept yet."""
    kept = CACHE / f"{suite}-root"
    if kept.exists():
        return kept
    try:
        debian.ensure({"debootstrap": "debootstrap"}, why="a new Debian root")
    except debian.Missing as problem:
        raise CannotRun(" ".join(str(problem).split())) from None
    print(f"fresh: a minimal Debian {suite} into {kept} (a minute) ...", flush=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as place:
        made = pathlib.Path(place) / "root"
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
        done = subprocess.run([*command, suite, made], check=False, capture_output=True, text=True)
        if done.returncode:
            said = (done.stdout + done.stderr).strip().splitlines() or ["nothing"]
            raise CannotRun(f"debootstrap {suite} ended with {done.returncode}: {said[-1]}")
        made.rename(kept)
    return kept


def adapt(root):
    """Give a root the repository and this machine's way to the registries."""
    bundle = ["git", "bundle", "create", "--quiet", root / "mnt/minipsec.bundle", "HEAD"]
    subprocess.run(bundle, cwd=ROOT, check=True)
    for name in ("etc/resolv.conf", "etc/hosts"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(pathlib.Path("/") / name, root / name)
    own = pathlib.Path("/usr/local/share/ca-certificates")
    if own.exists() and any(own.iterdir()):
        shutil.copytree(own, root / "usr/local/share/ca-certificates", dirs_exist_ok=True)
        subprocess.run(["chroot", root, "update-ca-certificates"], check=True, capture_output=True)


def environment(**more):
    passed = {name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)}
    passed.pop("PIP_FIND_LINKS", None)  # a folder of this machine's
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {**passed, "PATH": path, "LANG": "C.UTF-8", "TERM": "dumb", **more}


@contextlib.contextmanager
def copy(suite):
    """A copy of the suite's root, gone at the end."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{suite}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs at once: the second waits
        original = base(suite)
        place = tempfile.mkdtemp(prefix=f"{suite}-", dir=CACHE)
        try:
            root = pathlib.Path(place) / "root"
            subprocess.run(["cp", "-a", original, root], check=True)
            adapt(root)
            yield root
        finally:
            shutil.rmtree(place)


def inside(root, suite, script, *words, **more):
    """Run a script in a root; return its exit code. All its processes end with it."""
    cache = CACHE / f"{suite}-downloads"
    for name in ("archives/partial", "cache", "npm"):
        (cache / name).mkdir(parents=True, exist_ok=True)
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private"]
    command += ["sh", "-euc", _ENTER, "sh", root, cache]
    command += ["sh", "-euc", script, "sh", *words]
    return subprocess.run(command, check=False, env=environment(**more)).returncode


def run(suite, args=None):
    """Do it in one suite; return the exit code of what failed first, or 0.

    `args` of pytest stand for its share, and for what a user runs.
    """
    share = args or " ".join(SHARES[suite])
    with copy(suite) as root:
        where = f"/root/{CLONE}"
        print(f"fresh: Debian {suite}, as root in '{where}'", flush=True)
        failed = inside(root, suite, _AS_ROOT, where, share, HOME="/root", CI="true")
        if failed or args:
            return failed
        where = f"/home/someone/{CLONE}"
        print(f"fresh: Debian {suite}, as a user in '{where}'", flush=True)
        return inside(root, suite, _AS_USER, where, " ".join(AS_USER), HOME="/root")


def main(argv=None):
    parser = argparse.ArgumentParser("make fresh", description=__doc__.partition("\n")[0])
    parser.add_argument("--suite", choices=SHARES, action="append", help="both without it")
    parser.add_argument("--args", help="of pytest, instead of the share")
    options = parser.parse_args(argv)
    try:
        if os.geteuid() != 0:
            raise CannotRun("a new Debian root needs root (chroot)")
        for suite in options.suite or SHARES:
            failed = run(suite, options.args)
            if failed:
                return failed
    except CannotRun as problem:
        print(f"fresh: {problem}", file=sys.stderr)
        return 1 if os.environ.get("CI") == "true" else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
