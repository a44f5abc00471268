"""Tells Twisted that there is ``twistd p2pmqtt``.

Every twistd and trial on the machine imports this file, so it names things and imports nothing of ours.
"""

from twisted.application.service import ServiceMaker

p2pmqtt = ServiceMaker("p2pmqtt", "twisted_p2pmqtt.tap", "An MQTT broker with peer-to-peer messages.", "p2pmqtt")
