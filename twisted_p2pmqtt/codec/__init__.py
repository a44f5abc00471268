"""Bytes to packets and back: MQTT 3.1, 3.1.1 and 5.0 without I/O, clock or log.

Standard library only.  ``reader`` turns a stream of bytes into packets, ``writer`` turns packets into bytes, and
whatever is not whole and legal raises ``errors.MQTTError`` with the reason code to answer with.
"""
