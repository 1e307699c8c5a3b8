import sys

if ".frozen" not in sys.path:  # MICROPYPATH on the unix port leaves it out, and asyncio is there
    sys.path.append(".frozen")

import sensor

code = sensor.run(sys.argv[1:])
if sys.argv:  # a board has none, and goes to its prompt
    sys.exit(code)
