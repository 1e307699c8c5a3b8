"""What an application has around its samples: queue, spool, log, LED.  Loaded with sensor.py."""
