"""Run the test functions of one module under MicroPython: `micropython run_tests.py MODULE`.

Prints `pass NAME`, or `fail NAME` and the traceback; exits with 1 when one failed.
"""

import gc
import sys

from tools.dev.peers.node import remember_exchanges

remember_exchanges()
module = __import__(sys.argv[1], None, None, ("*",))
failed = 0
for name in sorted(dir(module)):
    if not name.startswith("test_"):
        continue
    gc.collect()
    try:
        getattr(module, name)()
        print("pass", name)
    except Exception as e:
        failed += 1
        print("fail", name)
        sys.print_exception(e)
sys.exit(1 if failed else 0)
