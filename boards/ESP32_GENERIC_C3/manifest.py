# make -C micropython/ports/PORT BOARD=ESP32_GENERIC_C3 FROZEN_MANIFEST=this file
#
# Freezes the stack beside what the stock firmware has. main.py and sensor.py stay in the file
# system, where their owner edits them.
include("$(PORT_DIR)/boards/manifest.py")
package("minipsec", base_path="../../firmware", opt=3)
