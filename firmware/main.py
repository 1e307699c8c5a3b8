import sys

if ".frozen" not in sys.path:  # MICROPYPATH on the unix port leaves it out, and asyncio is there
    sys.path.append(".frozen")

try:
    import sensor

    code = sensor.run(sys.argv[1:])
except Exception as e:
    if sys.argv:
        raise
    # A sensor that did not answer at the import, for instance: a minute for a console, and anew.
    import machine
    import time

    for _ in range(12):
        sys.print_exception(e)  # again, for a console that comes late
        time.sleep(5)
    machine.reset()
    sys.exit()  # it came back: on a board this is a soft reset
if sys.argv:  # a board has none, and goes to its prompt
    sys.exit(code)
