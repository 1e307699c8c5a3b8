"""From a gateway and a board in its box to readings: devices, their keys, their boards."""
