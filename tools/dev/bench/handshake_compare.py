"""`make bench-compare`: which figures of one run are worse than those of another.

Only what does not depend on the machine's speed is compared: ratios of CPU times taken in turns,
octets, datagrams and heap. Each figure is one where less is better, and has a tolerance: the factor
by which a new run may exceed the baseline before it counts as worse.
"""

import json

DTLS = "DTLS ECDHE-ECDSA"

# Times taken in turns still differ from run to run, most of all over sockets; octets of DTLS by an
# ECDSA signature or two, of which each is up to 3 shorter at random.
TOLERANCE = {"CPU": 1.3, "octets": 1.02, "datagrams": 1.0, "heap": 1.15}


class Unusable(Exception):
    """No results to compare with; the text is one line."""


def load(path):
    """Return {figure: (kind, value)} of a results file."""
    try:
        with open(path, encoding="utf-8") as file:
            found = figures(json.load(file))
    except FileNotFoundError:
        raise Unusable(f"no {path}: `make bench` makes one") from None
    except OSError as problem:
        raise Unusable(f"{path}: {problem.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError) as problem:
        what = f"{type(problem).__name__}: {problem}".splitlines()[0]
        raise Unusable(f"{path} holds no results of `make bench` ({what})") from None
    return found


def figures(result):
    """{figure: (kind, value)} of what measure() returned."""
    found = {}
    dtls = result["handshake"][DTLS]
    for name, row in result["handshake"].items():
        if name.startswith(("DTLS", "charon")):  # what ours is measured by
            continue
        found[f"handshake, {name}: CPU / DTLS"] = "CPU", row["ratio"]
        found[f"handshake, {name}: octets / DTLS"] = "octets", row["octets"] / dtls["octets"]
        found[f"handshake, {name}: datagrams"] = "datagrams", row["datagrams"]
    for way in ("seal", "open", "tunnel.send"):
        row = result["packets"][way]
        for size, ratio in row["ratio"].items():
            found[f"{way}, {size} octets: CPU / DTLS write"] = "CPU", ratio
        found[f"{way}: heap a packet"] = "heap", max(row["garbage"].values())
    first = result["fragments"][0]
    for row in result["fragments"][1:]:
        name = f"fragments of {row['fragment_size']} octets"
        found[f"{name}: CPU / unfragmented"] = "CPU", row["ratio"]
        found[f"{name}: octets / unfragmented"] = "octets", row["octets"] / first["octets"]
    for row in result["many"]:
        name = f"tunnels in one process: {row['tunnels']}"
        if row is not result["many"][0]:
            found[f"{name}, CPU of a handshake / of one alone"] = "CPU", row["ratio"]
        found[f"{name}, heap of one"] = "heap", row["heap"]
    for name, (_, value) in found.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool) or value < 0:
            raise ValueError(f"{name} is {value!r}")
    return found


def held_against(before, after):
    """Return (lines that say how each figure changed, those that are worse)."""
    lines, worse = [], []
    for name, (kind, old) in before.items():
        if name not in after:
            lines.append(f"  not measured  {name}")
            continue
        new = after[name][1]
        # Nothing allocated before: any octet is more.
        factor = new / old if old else 1.0 if not new else float("inf")
        said = f"{factor:6.2f} x  {name}: {old:.6g} -> {new:.6g}"
        if factor > TOLERANCE[kind]:
            worse.append(name)
            said += f"  WORSE (up to {TOLERANCE[kind]} x is taken)"
        lines.append(said)
    lines += [f"  new           {name}" for name in after if name not in before]
    verdict = f"{len(worse)} of {len(lines)} figures worse" if worse else "none is worse"
    return [*lines, f"bench-compare: {verdict}"], worse
