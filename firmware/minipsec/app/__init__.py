"""The loop around sensor.py, its queue, spool, log and LED.  Loaded by main.py, for ever."""
