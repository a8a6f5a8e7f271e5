"""Devices: how they are arranged, where arrays lie on them, how processes find each other. Knows no network."""
