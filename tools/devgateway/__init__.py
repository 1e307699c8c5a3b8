"""A development gateway: IKEv2 responder and ESP receiver in CPython.

For trying out and testing sensors on a PC. Not for production: one process, no privilege
separation, secrets in memory, no rekeying, no certificates. Written from the RFCs on its
own, so that it checks the firmware's reading of them.
"""

from .config import Config, ConfigError, Secrets, load_ppks, load_secrets
from .gateway import Endpoint, Gateway
from .server import RunningGateway, Server

__all__ = [
    "Config",
    "ConfigError",
    "Endpoint",
    "Gateway",
    "RunningGateway",
    "Secrets",
    "Server",
    "load_ppks",
    "load_secrets",
]
