"""What readings do not need, and may fail.

spare(work, *args)      counted in `skipped` where it raises
"""

skipped = 0  # calls of `spare` that failed


def spare(work, *args):
    """Return work(*args), or None where it raises: the LED, the log, power saving."""
    global skipped
    try:
        return work(*args)
    except Exception:
        skipped += 1
