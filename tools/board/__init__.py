"""A board on a serial port: copy to it, read from it, watch it."""
