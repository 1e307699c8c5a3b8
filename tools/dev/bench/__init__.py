"""Measurements that take minutes and whose results are kept."""
