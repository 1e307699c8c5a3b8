"""The `capture` command."""

import io
import pathlib
import socket
import time
from typing import Annotated

import typer

from ..common.files import private_file, write_private
from ..common.options import count, fact, say
from ..common.problem import BadInput, Problem
from . import packets
from .keys import Keys
from .reading import Reader

_ETH_P_ALL = 3
_LIKE_ETHERNET = (1, 772)  # Ethernet, loopback
_NO_HEADER = (65534, 519, 768, 769, 776)  # none, raw IP, tunnels


def capture(
    file: Annotated[pathlib.Path, typer.Argument(metavar="FILE", help="The recording, a pcap.")],
    interface: Annotated[
        str | None,
        typer.Option("--interface", "-I", help="Record from here (root); read FILE without it."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long to record; 0 until Ctrl-C.")] = 0,
    charon_log: Annotated[
        pathlib.Path | None,
        typer.Option(
            metavar="FILE", help="charon's log with ike = 4 and chd = 4: IKE and ESP keys."
        ),
    ] = None,
    keylog: Annotated[
        pathlib.Path | None,
        typer.Option(metavar="FILE", help="A key log of a device or of devgateway: IKE keys."),
    ] = None,
    decrypted: Annotated[
        pathlib.Path | None,
        typer.Option(metavar="FILE", help="Where the packets inside ESP go, as a second pcap."),
    ] = None,
):
    """Record a session, and make it readable with the keys of a debug session.

    IKE: beside FILE comes FILE.ikev2_decryption_table, in Wireshark's form. ESP: Wireshark has no
    AES-CCM there, so what was inside goes to a second pcap of plain IP packets.
    """
    if decrypted and not charon_log:
        raise BadInput("--decrypted: ESP keys come out of --charon-log")
    keys = Keys()
    if interface:
        frames = record(interface, file, seconds)
        say(f"{count(frames, 'frame')} of IKE and ESP in {file}")
    # Only now: a session that is being recorded writes its keys meanwhile.
    if charon_log:
        keys.read_charon(charon_log)
    if keylog:
        keys.read_keylog(keylog)
    reader = Reader(keys)
    recording = packets.Recording(file)
    for frame in recording.read():
        packet = packets.parse(*frame)
        if packet:
            reader.add(packet)
    found = reader.found
    tell(file, found, decrypted, bool(charon_log or keylog))
    faults = list(recording.faults)
    if faults:
        raise Problem(f"not all of {file} could be read: {'; '.join(faults)}")
    if not found.ike_messages and not found.esp_packets:
        raise Problem(
            f"there is neither IKE nor ESP in {file} ({count(recording.frames, 'frame')})"
        )


def record(interface, path, seconds):
    """Write every IKE and ESP frame of an interface to a pcap until the time is over."""
    try:
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        sniffer.bind((interface, 0))
    except AttributeError:
        raise Problem("recording needs Linux", "record with Wireshark and read its file") from None
    except PermissionError:
        raise Problem(f"only root may record from {interface}", "sudo, or setcap") from None
    except OSError as error:
        raise Problem(f"cannot record from {interface}: {error.strerror}") from None
    frames = 0
    end = time.monotonic() + seconds if seconds else None
    try:
        file = open(path, "wb", buffering=0)
    except OSError as error:
        raise Problem(f"cannot write {path}: {error.strerror}") from None
    with sniffer, file:
        link = None
        sniffer.settimeout(0.1)
        try:
            while end is None or time.monotonic() < end:
                try:
                    frame, address = sniffer.recvfrom(65535)
                except TimeoutError:
                    continue
                if link is None:
                    link = _link_type(interface, address[3])
                    file.write(packets.header(link))
                now = time.time_ns()
                if packets.parse(now, link, frame):
                    file.write(packets.record(now, frame))
                    frames += 1
        except KeyboardInterrupt:
            pass
        if link is None:
            file.write(packets.header(packets.ETHERNET))
    return frames


def _link_type(interface, hardware):
    """The link type of an interface, by the kernel's number for its kind (linux/if_arp.h)."""
    if hardware in _NO_HEADER:
        return packets.RAW
    if hardware in _LIKE_ETHERNET:
        return packets.ETHERNET
    raise Problem(
        f"cannot record from {interface}: its frames have no form that is known ({hardware})",
        "record with tcpdump and read its file",
    )


def tell(path, found, decrypted, keyed):
    """Write the keys for Wireshark and the opened packets; say what there was."""
    messages = count(found.ike_messages, "message")
    fact("IKE", f"{messages}, keys for {count(len(found.rows), 'SA')}")
    fact("ESP", f"{count(found.esp_packets, 'packet')}, {found.opened} opened")
    if found.closed and keyed:
        fact("", f"no key for the SPIs {', '.join(sorted(found.closed))}")
    if found.rows:
        table = path.with_name(path.name + ".ikev2_decryption_table")
        text = io.StringIO()
        for row in found.rows.values():
            # Wireshark wants its own quotes, around the names only.
            names = {4: f'"{row[4]}"', 7: f'"{row[7]}"'}
            text.write(",".join(names.get(n, str(value)) for n, value in enumerate(row)) + "\n")
        write_private(table, text.getvalue())
        fact("for Wireshark", f"copy {table} to ~/.config/wireshark/ikev2_decryption_table")
    if decrypted:
        with private_file(decrypted, binary=True) as file:
            file.write(packets.header(packets.RAW))
            for time_ns, packet in found.inner:
                file.write(packets.record(time_ns, packet))
        fact(
            "inside ESP",
            f"{count(len(found.inner), 'packet')} in {decrypted},"
            f" {count(found.dummies, 'dummy', 'dummies')}",
        )
