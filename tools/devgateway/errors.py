"""What ends the handling of a request with an answer instead of a drop."""

from .wire import Notify


class Refuse(Exception):
    """Answer the request with this notify; `fatal` ends the IKE SA after the answer."""

    def __init__(self, notify, text="", data=b"", fatal=False):
        super().__init__(text)
        self.notify = Notify(notify, data)
        self.fatal = fatal
