# make -C micropython/ports/PORT BOARD=RPI_PICO_W FROZEN_MANIFEST=this file
#
# Freezes the stack beside what the stock firmware has. main.py and sensor.py stay in the file
# system, where their owner edits them.
include("$(BOARD_DIR)/manifest.py")
package("minipsec", base_path="../../firmware", opt=3)
