"""The `devgateway` command."""

import asyncio
import signal
from typing import Annotated

import typer

from ..common.problem import BadInput
from .config import Config, ConfigError, load_ppks, load_secrets
from .proposals import DEFAULT_ESP, DEFAULT_IKE
from .report import json_reporter, text_reporter
from .server import Server


async def _serve(server):
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    server.start()
    await stop.wait()
    await server.close()


def devgateway(
    secrets: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help='Pre-shared keys: JSON {"psk": "text or 0xHEX"} for every sensor, JSON'
            ' {"identity": "psk", ..} or CSV lines identity,psk.',
        ),
    ],
    id: Annotated[str, typer.Option(help="Our identity (IDr).")] = "gw.example.org",
    bind: Annotated[str, typer.Option(help="IPv4 or IPv6 address to listen on.")] = "0.0.0.0",
    port: Annotated[int, typer.Option(help="IKE port; 0 takes a free one.")] = 500,
    natt_port: Annotated[
        int, typer.Option(help="Port for IKE with marker and ESP in UDP; 0 takes a free one.")
    ] = 4500,
    pool: Annotated[str, typer.Option(help="Inner IPv4 addresses to hand out; '' for none.")] = (
        "10.9.0.0/24"
    ),
    pool6: Annotated[str, typer.Option(help="Inner IPv6 addresses to hand out.")] = "",
    local_ts: Annotated[
        list[str] | None, typer.Option(help="Networks behind the gateway; repeatable.")
    ] = None,
    remote_ts: Annotated[
        list[str] | None,
        typer.Option(help="Inner addresses a sensor may bring itself; repeatable."),
    ] = None,
    ike: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SUITE",
            help="IKE suite that is taken, best first; repeatable. In strongSwan's notation.",
        ),
    ] = None,
    esp: Annotated[
        list[str] | None,
        typer.Option(help="ESP suite that is taken, best first; repeatable. E.g. aes128ccm8."),
    ] = None,
    cookie: Annotated[bool, typer.Option(help="Ask everyone for a cookie.")] = False,
    require_cp: Annotated[
        bool, typer.Option(help="Refuse sensors that bring their own inner address.")
    ] = False,
    encap: Annotated[
        bool,
        typer.Option(help="Claim to be behind a NAT, so that ESP always comes in UDP."),
    ] = True,
    raw_esp: Annotated[
        bool,
        typer.Option(help="Take ESP straight on IP (protocol 50) too; root, with --no-encap."),
    ] = False,
    echo: Annotated[bool, typer.Option(help="Send every reading back to its sensor.")] = True,
    replay_window: Annotated[int, typer.Option(help="Sequence numbers; 0 switches it off.")] = 64,
    fragment_size: Annotated[
        int,
        typer.Option(
            help="Largest IP datagram of ours in octets; 0: 576 for IPv4, 1280 for IPv6."
        ),
    ] = 0,
    fragment_gap: Annotated[
        int, typer.Option(help="Milliseconds between the datagrams of one message.")
    ] = 0,
    fragmentation: Annotated[bool, typer.Option(help="IKE fragmentation, RFC 7383.")] = True,
    frag_ack: Annotated[
        str,
        typer.Option(
            metavar="POLICY", help="Fragment acknowledgment: off, conservative or eager."
        ),
    ] = "conservative",
    frag_ack_draft: Annotated[
        str, typer.Option(help="02, or 03 (also 04), which clears the R bit of FRAGMENT_ACK_RES.")
    ] = "02",
    ack_gap: Annotated[
        int, typer.Option(help="Milliseconds of silence before missing fragments are told.")
    ] = 200,
    intermediate: Annotated[
        bool, typer.Option(help="IKE_INTERMEDIATE and additional key exchanges.")
    ] = True,
    ppks: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Post-quantum preshared keys: as --secrets, by PPK id."),
    ] = None,
    ppk_required: Annotated[bool, typer.Option(help="Refuse sensors without a PPK.")] = False,
    transport: Annotated[
        bool, typer.Option(help="ESP transport mode for sensors that ask for it.")
    ] = True,
    loss: Annotated[float, typer.Option(help="Percent of datagrams to drop each way.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the generator that picks the losses.")] = 1,
    keylog: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write session keys for Wireshark.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
):
    """Run the development gateway: an IKEv2 responder and ESP receiver for tests on a PC.

    It is a development tool and no gateway for real use: no certificates, no rekeying, no
    kernel IPsec, secrets in memory. It prints what sensors send, and stops at Ctrl-C.
    """
    try:
        config = Config(
            load_secrets(secrets),
            id=id,
            pool=pool or None,
            pool6=pool6 or None,
            local_ts=tuple(local_ts or ("0.0.0.0/0", "::/0")),
            remote_ts=tuple(remote_ts or ("0.0.0.0/0", "::/0")),
            ike=tuple(ike or DEFAULT_IKE),
            esp=tuple(esp or DEFAULT_ESP),
            cookie=cookie,
            require_cp=require_cp,
            encap=encap,
            raw_esp=raw_esp,
            echo=echo,
            replay_window=replay_window,
            fragment_size=fragment_size,
            fragment_gap_ms=fragment_gap,
            fragmentation=fragmentation,
            frag_ack=frag_ack,
            frag_ack_draft=frag_ack_draft,
            ack_gap_ms=ack_gap,
            intermediate=intermediate,
            ppks=load_ppks(ppks) if ppks else {},
            ppk_required=ppk_required,
            transport=transport,
            keylog=keylog,
        )
        if not 0 <= loss <= 100:
            raise ConfigError("loss: expected 0..100")
        if not (0 <= port <= 65535 and 0 <= natt_port <= 65535):
            raise ConfigError("port, natt-port: expected 0..65535")
        report = json_reporter() if json else text_reporter()
        server = Server(config, bind, port, natt_port, report, loss, seed)
    except (ConfigError, ValueError) as error:
        raise BadInput(str(error)) from None
    except OSError as error:
        raise BadInput(f"keylog: {error.filename}: {error.strerror}") from None
    asyncio.run(_serve(server))
