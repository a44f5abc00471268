"""Twisted I/O: protocols, the factory, and the one place that writes to a transport."""
