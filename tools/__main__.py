import sys

try:
    from .cli import main

    main()
except KeyboardInterrupt:  # before the command line could say it itself
    print("error: interrupted", file=sys.stderr)
    sys.exit(130)
