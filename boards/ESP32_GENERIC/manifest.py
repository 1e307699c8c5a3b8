# make -C micropython/ports/PORT BOARD=ESP32_GENERIC FROZEN_MANIFEST=this file
#
# Freezes the stack beside what the stock firmware has. main.py and sensor.py stay in the file
# system, where their owner edits them.
include("$(PORT_DIR)/boards/manifest.py")

# Without the module in ARM's assembler, which only a build for such a chip can compile.
from os import listdir

modules = [name for name in listdir("../../firmware/minipsec") if name.endswith(".py")]
modules.remove("thumb.py")
package("minipsec", modules, base_path="../../firmware", opt=3)
