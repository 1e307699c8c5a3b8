"""IKE fragment acknowledgment (draft-antony-ipsecme-ikev2-fragment-acknowledgment-02)."""

from hashlib import sha256

# Beside the notify types, which are private: only this makes them mean what we mean.
VENDOR_ID = sha256(b"minipsec fragment acknowledgment 02").digest()[:16]


class Acks:
    """Fragment acknowledgment of one IKE SA, both ways."""

    def __init__(self, profile):
        self._profile = profile

    def takes(self, sa, first, plain, response, now):
        """Act on a message that is an acknowledgment, and say so."""
        return False

    def arm(self, sa, queue, response, now):
        """A new fragment came; the message is not complete."""

    def saw_resend(self, queue, response, now):
        """A fragment that we have came again."""

    def stop(self, response):
        """The message is complete."""

    def done(self):
        """The exchange of ours is over."""

    def resend(self, datagrams):
        """Return those of an outstanding request's datagrams that the timer resends."""
        return datagrams

    def timer(self, sa, now):
        """Do what is due."""

    def next_timer(self):
        """Return when `timer` is to be called, or None."""
