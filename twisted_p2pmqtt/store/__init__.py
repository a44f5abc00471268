"""Where sessions, queues and retained messages are kept: implementations of ``IStore``."""
