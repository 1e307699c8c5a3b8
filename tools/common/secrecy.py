"""What every tool does that holds secrets."""


def no_core_dumps():
    """Have the kernel write no core dump of this process and its children, crash as they may."""
    try:
        import resource
    except ImportError:  # Windows, which has another way of crashing
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
