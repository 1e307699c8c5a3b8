"""Virtual inner addresses for sensors that ask by CP (RFC 7296 §3.15)."""

from ipaddress import ip_address, ip_network

MAX_REMEMBERED = 4096


class Pool:
    """Addresses of one network. An identity gets its former address while that is free."""

    def __init__(self, network):
        self._network = ip_network(network, strict=False)
        self._taken = set()
        self._last = {}  # identity -> address
        self._next = 0

    def _usable(self, address):
        if address not in self._network or address in self._taken:
            return False
        if self._network.num_addresses > 2:
            if address == self._network[0]:
                return False
            if self._network.version == 4 and address == self._network[-1]:
                return False
        return True

    def take(self, identity, wanted=None):
        """An address: the wanted one, the identity's last one, or the next; None if full."""
        for address in (wanted, self._last.get(identity)):
            if address is not None and self._usable(address):
                return self._keep(identity, address)
        size = self._network.num_addresses
        for _ in range(min(size, len(self._taken) + 3)):
            address = self._network[self._next % size]
            self._next += 1
            if self._usable(address):
                return self._keep(identity, address)
        return None

    def _keep(self, identity, address):
        self._taken.add(address)
        self._last.pop(identity, None)
        self._last[identity] = address
        if len(self._last) > MAX_REMEMBERED:
            del self._last[next(iter(self._last))]
        return address

    def release(self, address):
        self._taken.discard(address)


def address_of(value):
    """The address in an INTERNAL_IP4_ADDRESS / _IP6_ADDRESS value, None if unspecified."""
    if not value:
        return None
    address = ip_address(bytes(value[:4] if len(value) == 4 else value[:16]))
    return None if address.is_unspecified else address
