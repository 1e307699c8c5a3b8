"""Marks for tests that run on both interpreters, where pytest may be missing."""

try:
    from pytest import mark

    item = mark.item
    long = mark.long

    def fails(reason):
        """The test shows a bug that is still there; it must flip when the bug is mended."""
        return mark.xfail(reason=reason, strict=True)

except ImportError:

    def item(*ids):
        return lambda test: test

    def long(test):
        return test

    def fails(reason):
        def wrap(test):
            def run():
                try:
                    test()
                except Exception:
                    return
                raise AssertionError("this passes now, take the mark away: " + reason)

            return run

        return wrap


def drop_of(function, *arguments):
    """Return the reason of the `wire.Drop` that the call raises; None if it raises none."""
    from minipsec.ike.wire import Drop

    try:
        function(*arguments)
    except Drop as e:
        return e.args[0]
    return None
