import sys

if ".frozen" not in sys.path:  # MICROPYPATH on the unix port leaves it out, and asyncio is there
    sys.path.append(".frozen")

try:
    import minipsec  # noqa: F401  before sensor.py looks at an ESP32's RTC memory
    import sensor

    if hasattr(sensor, "run"):  # a program of its owner's own, in place of our loop
        code = sensor.run(sys.argv[1:])
        if hasattr(code, "send"):  # it is async
            import asyncio

            code = asyncio.run(code)
    else:
        from minipsec.app.run import run

        code = run(sensor, sys.argv[1:])
except Exception as e:
    if sys.argv:
        raise
    # A sensor that did not answer at the import, for instance: a minute for a console, then reset.
    import machine
    import time

    for _ in range(12):
        sys.print_exception(e)  # repeated, for a console that comes late
        if isinstance(e, ImportError):
            print(
                "Is sensor.py of an older minipsec? Keep sample(), command() and settings alone."
            )
        time.sleep(5)
    machine.reset()
    sys.exit()  # reset() returned: on a board this is a soft reset
if sys.argv:  # a board has none and goes to its prompt
    sys.exit(code)
