"""Devices of an owner: who they are, what they are told, where their keys lie."""
