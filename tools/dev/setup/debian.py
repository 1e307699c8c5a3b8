"""Install Debian or Ubuntu packages when they are missing and we may.

No service starts because of it: for as long as apt runs, a policy-rc.d says so,
which invoke-rc.d and deb-systemd-invoke both obey.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys

_POLICY = pathlib.Path("/usr/sbin/policy-rc.d")


class Missing(Exception):
    """Packages are missing and cannot be installed here; the text says what to do."""


def installed(package):
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status}", package],
        capture_output=True,
        text=True,
    )
    return done.returncode == 0 and done.stdout == "installed"


@contextlib.contextmanager
def _no_services():
    if _POLICY.exists():  # someone's own policy: leave it
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)


def _apt(*words):
    """Run apt-get; return (its exit code, what it said)."""
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive", LC_ALL="C.UTF-8")
    options = ["-o", "DPkg::Lock::Timeout=300", "-qq", "-y", "--no-install-recommends"]
    done = subprocess.run(
        ["apt-get", *options, *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def missing(packages):
    """`packages` is {package: a command that shows it is there, or None}."""
    return [
        name
        for name, command in packages.items()
        if not (command and shutil.which(command)) and not installed(name)
    ]


def ensure(packages, why):
    """Install what is missing of `packages` or raise `Missing`; one line of output."""
    if not shutil.which("apt-get"):
        lacking = [
            n for n, command in packages.items() if not command or not shutil.which(command)
        ]
        if lacking:
            raise Missing(f"{why}: not Debian or Ubuntu; install {', '.join(lacking)}")
        return
    lacking = missing(packages)
    if not lacking:
        return
    line = "apt-get install --no-install-recommends " + " ".join(lacking)
    if os.geteuid() != 0:
        raise Missing(f"{why}: as root run\n  {line}")
    print(f"setup: {line} ", end="", flush=True)
    with _no_services():
        _apt("update")
        _, plan = _apt("--simulate", "install", *lacking)
        count = sum(step.startswith("Inst ") for step in plan.splitlines())
        print(f"({count} packages with what they need) ...", end="", flush=True)
        code, said = _apt("install", *lacking)
    print(" failed" if code else " ok")
    if code:
        print(said, file=sys.stderr)
        raise Missing(f"{why}: apt could not install {' '.join(lacking)}")
