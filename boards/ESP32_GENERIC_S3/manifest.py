# make -C micropython/ports/PORT BOARD=ESP32_GENERIC_S3 FROZEN_MANIFEST=this file
#
# Freezes the stack beside what the stock firmware has. main.py and sensor.py stay in the file
# system, where their owner edits them.
include("$(PORT_DIR)/boards/manifest.py")

# Without the module in ARM's assembler, which only a build for such a chip can compile.
from pathlib import Path

base = Path("../../firmware/minipsec")
modules = [str(path.relative_to(base)) for path in base.rglob("*.py")]
modules.remove("kex/x25519_thumb.py")
package("minipsec", modules, base_path="../../firmware", opt=3)
