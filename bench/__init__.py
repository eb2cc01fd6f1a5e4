"""Measurements that the project's claims rest on: `make bench-loss`, `make bench-step`."""
