"""What a board has in C and this interpreter has not: cryptolib, SHA-1, sockets, urandom.

`install()` puts them into sys.modules.  Each object takes as much heap as its counterpart on an
RP2040 with mbedTLS; what they do is done in JavaScript, by addresses.
"""

import asyncio
import binascii
import errno
import hashlib
import io
import json
import os
import struct
import sys
import time
from array import array
from uctypes import addressof, bytes_at

import __main__
import _host
import _js_loops

_aes, _crypt = _host.aes, _host.crypt
_hash, _update, _digest = _host.hash, _host.update, _host.digest
_sent, _next = _host.sent, _host.next
_incoming = _host.incoming

# An instance of a Python class takes 48 octets beside its buffer.
_AES = 304 - 48  # mbedtls_aes_context, IV, mode
_SHA1 = 112 - 48  # mbedtls_sha1_context


class Parts:
    """A module made of what it is called with."""

    def __init__(self, **names):
        for name in names:
            setattr(self, name, names[name])


class AES(bytearray):
    """cryptolib.aes"""

    def __init__(self, key, mode, iv=None):
        super().__init__(_AES)
        self[0] = self[1] = 255
        self[2] = len(key)
        self[3] = mode
        self[16 : 16 + len(key)] = key
        if mode == 2:
            self[48:64] = iv

    def _process(self, data, out, decrypt):
        if self[0] == self[1] == 255:
            at = addressof(self)
            number = _aes(at + 16, self[2], at + 48 if self[3] == 2 else 0, decrypt)
            self[0] = number & 255
            self[1] = number >> 8
        if out is None:
            out = bytes(len(data))
        _crypt(self[0] | self[1] << 8, addressof(data), len(data), addressof(out))
        return out

    def encrypt(self, data, out=None):
        return self._process(data, out, 0)

    def decrypt(self, data, out=None):
        return self._process(data, out, 1)


class SHA1(bytearray):
    """hashlib.sha1"""

    def __init__(self, data=b""):
        super().__init__(_SHA1)
        number = _hash()
        self[0] = number & 255
        self[1] = number >> 8
        self.update(data)

    def update(self, data):
        if data:
            _update(self[0] | self[1] << 8, addressof(data), len(data))

    def digest(self):
        out = bytes(20)
        _digest(self[0] | self[1] << 8, addressof(out))
        return out


class Socket:
    """socket.socket, and at the same time select.poll() for it."""

    last = None

    def __init__(self, *_):
        self.waiting = 0
        self.task = None
        Socket.last = self

    def bind(self, address):
        pass

    def setblocking(self, flag):
        pass

    def sendto(self, data, address):
        _sent()

    def recvfrom(self, size):
        if not self.waiting:
            raise OSError(11)
        self.waiting -= 1
        bytes(size)  # a board takes so much first, and gives back what was not needed
        return bytes_at(_incoming, _next()), Socket.peer

    peer = ("10.77.0.1", 4500)

    def close(self):
        pass


class _Poll:
    def register(self, socket, events):
        self.socket = socket

    def poll(self, timeout):
        return self.socket.waiting


class _Queue:
    """asyncio's queue of those who wait for a socket."""

    def queue_read(self, socket):
        if socket.waiting:
            asyncio.core._task_queue.push(asyncio.core.cur_task)
        else:
            socket.task = asyncio.core.cur_task

    def remove(self, task):
        pass


def came(socket, n):
    """Have `n` datagrams wait in a socket."""
    socket.waiting += n
    if socket.task:
        task, socket.task = socket.task, None
        asyncio.core._task_queue.push(task)


def _getaddrinfo(host, port, *_):
    return [(2, 2, 0, "", (host, port))]


def _urandom(n):
    return bytes([7 + i for i in range(n)])


def install():
    modules = sys.modules
    modules["cryptolib"] = Parts(aes=AES)
    modules["hashlib"] = Parts(sha256=hashlib.sha256, sha1=SHA1)
    modules["socket"] = Parts(
        socket=Socket, getaddrinfo=_getaddrinfo, AF_INET=2, AF_INET6=10, SOCK_DGRAM=2, SOCK_RAW=3
    )
    modules["select"] = Parts(poll=_Poll, POLLIN=1)
    loops = {name: getattr(_js_loops, name) for name in __main__.LOOPS}
    modules["_loops"] = Parts(in_heap=not __main__.FROZEN, **loops)
    os.urandom = _urandom
    asyncio.core._io_queue = _Queue()
