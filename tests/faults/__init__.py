"""Faults: the broker as a process that is killed, robbed of its disk, or given damaged files.  See ``__main__``."""
