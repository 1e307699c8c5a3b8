"""Runs on MicroPython: files change places on a littlefs whose power is cut at every write.

Prints one JSON object: how many cuts were tried, and each broken promise.
"""

import json
import os
import sys
import vfs

with open(sys.argv[1]) as f:
    EXCHANGE = f.read()

NAMES = {}
exec(EXCHANGE, NAMES)
OLD = {"main.py": "m1", "sensor.py": "s1", "lib/minipsec/a.mpy": "a1"}
OLD["minipsec/x.py"] = "x1"
OLD["lib/minipsec/ike.mpy"] = OLD["lib/minipsec/old/z.mpy"] = "flat"
PLANS = {
    "modules": {"sensor.py": "s2", "lib/minipsec/a.mpy": "a2", "lib/minipsec/ike/b.mpy": "b2"},
    "main too": {"sensor.py": "s2", "main.py": "m2", "lib/minipsec/a.mpy": "a2"},
}
REMOVED = ["minipsec/x.py", "lib/minipsec/ike.mpy", "lib/minipsec/old/z.mpy"]


class PowerCut(BaseException):
    pass


class RAM:
    def __init__(self, octets=None):
        self.octets = octets or bytearray(b"\xff" * 64 * 512)
        self.left = 0

    def readblocks(self, n, buffer, offset=0):
        at = n * 512 + offset
        buffer[:] = self.octets[at : at + len(buffer)]

    def writeblocks(self, n, buffer, offset=0):
        at = n * 512 + offset
        if self.left:
            self.left -= 1
            if not self.left:
                half = len(buffer) // 2
                self.octets[at : at + half] = buffer[:half]
                raise PowerCut
        self.octets[at : at + len(buffer)] = buffer

    def ioctl(self, operation, _):
        return {4: 64, 5: 512}.get(operation, 0)


def mount(ram):
    vfs.mount(vfs.VfsLfs2(ram), "/")
    os.chdir("/")


def put(path, text):
    parts = path.split("/")
    for n in range(1, len(parts)):
        try:
            os.mkdir("/".join(parts[:n]))
        except OSError:
            pass
    with open(path, "w") as f:
        f.write(text)


def look():
    """{path: content}, without what a push keeps for itself."""
    found = {}
    directories = ["", "lib/minipsec/", "minipsec/"]
    while directories:
        directory = directories.pop()
        try:
            entries = list(os.ilistdir("/" + directory.rstrip("/")))
        except OSError:
            continue
        for entry in entries:
            if entry[1] & 0x8000:
                with open(directory + entry[0]) as f:
                    found[directory + entry[0]] = f.read()
            elif directory:
                directories.append(directory + entry[0] + "/")
        if directory and not entries:
            found[directory] = "empty"  # it hides a module of its name
    return found


def state(new):
    """ "old", "new", "none" (no program starts) or "mixed"."""
    found = look()
    after = dict(OLD)
    after.update(new)
    for path in REMOVED:
        del after[path]
    if found == OLD:
        return "old"
    if found == after:
        return "new"
    return "mixed" if "main.py" in found else "none"


def prepared(new, swapped):
    """A flash with the plan on it, before the exchange or after it."""
    ram = RAM()
    vfs.VfsLfs2.mkfs(ram)
    mount(ram)
    for path in OLD:
        put(path, OLD[path])
    os.mkdir(".push")
    for path in new:
        put(".push/new+" + path.replace("/", "+"), new[path])
    fresh = [path for path in new if path not in OLD]
    plan = {"files": list(new), "fresh": fresh, "removed": REMOVED, "phase": "swap"}
    put(".push/plan", json.dumps(plan))
    if swapped:
        NAMES["_swap"]()
    vfs.umount("/")
    return ram.octets


def settle():
    """As Push.settle does it, with a self-test that passes."""
    NAMES["_steady"]()
    plan = NAMES["_plan"]()
    if plan and plan["phase"] == "swap":
        NAMES["_swap"]()
    NAMES["_back" if plan and plan["phase"] == "back" else "_clean"]()


cuts, broken = 0, []


def check(good, *what):
    if not good:
        broken.append([str(word) for word in what])


for name in PLANS:
    new = PLANS[name]
    for work, swapped, allowed, end in (
        ("_swap", False, ("old", "none", "new"), "new"),
        ("_back", True, ("new", "none", "old"), "old"),
        ("_clean", True, ("new",), "new"),
    ):
        start = prepared(new, swapped)
        write = 0
        while True:
            write += 1
            ram = RAM(bytearray(start))
            mount(ram)
            ram.left = write
            try:
                NAMES[work]()
                done = True
            except PowerCut:
                done = False
            vfs.umount("/")
            if done:
                break
            cuts += 1
            # A copy, since what was open at the cut is closed by the garbage collector one day.
            ram = RAM(bytearray(ram.octets))
            mount(ram)
            found = state(new)
            check(found in allowed, name, work, write, found, look())
            settle()
            found = state(new)
            # A push back that had not begun is a push forward still.
            ends = (end, "new") if work == "_back" else (end,)
            check(found in ends, name, work, write, "settled", found, look())
            left = os.listdir("/.push") if ".push" in os.listdir("/") else []
            check(not left, name, work, write, left)
            vfs.umount("/")

print(json.dumps({"cuts": cuts, "broken": broken}))
