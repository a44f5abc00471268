"""An MQTT 3.1, 3.1.1 and 5.0 broker on Twisted, with point-to-point messages by topic.

The public names; everything else may move.  ``testing`` has what an embedder's own tests need, ``config`` the settings.
"""

from __future__ import annotations

from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.errors import MQTTError, ServerRedirect
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.core.broker import Broker
from twisted_p2pmqtt.core.credentials import MQTTCredentials
from twisted_p2pmqtt.core.handshake import Continue, LoggedIn, Success
from twisted_p2pmqtt.core.info import SessionInfo
from twisted_p2pmqtt.core.limits import Limits, P2POptions
from twisted_p2pmqtt.core.local import SendResult
from twisted_p2pmqtt.core.observers import Observer
from twisted_p2pmqtt.core.p2p import (
    BothP2PRouter,
    NoP2PRouter,
    P2PAddress,
    PrefixP2PRouter,
    SuffixP2PRouter,
    escape_client_id,
    unescape_client_id,
)
from twisted_p2pmqtt.interfaces import (
    IBroker,
    IBrokerObserver,
    IClientAvatar,
    IEnhancedAuthenticator,
    IMQTTCredentials,
    IP2PRouter,
    IStore,
    MalformedP2PTopic,
)
from twisted_p2pmqtt.net.protocol import MQTTFactory, MQTTProtocol, portal_login
from twisted_p2pmqtt.service import MQTTService
from twisted_p2pmqtt.store.memory import MemoryStore

__version__ = "0.1.0"

__all__ = [
    "BothP2PRouter",
    "Broker",
    "Continue",
    "IBroker",
    "IBrokerObserver",
    "IClientAvatar",
    "IEnhancedAuthenticator",
    "IMQTTCredentials",
    "IP2PRouter",
    "IStore",
    "Limits",
    "LoggedIn",
    "MQTTCredentials",
    "MQTTError",
    "MQTTFactory",
    "MQTTProtocol",
    "MQTTService",
    "MalformedP2PTopic",
    "MemoryStore",
    "Message",
    "NoP2PRouter",
    "Observer",
    "P2PAddress",
    "P2POptions",
    "PrefixP2PRouter",
    "ReasonCode",
    "SendResult",
    "ServerRedirect",
    "SessionInfo",
    "Success",
    "SuffixP2PRouter",
    "__version__",
    "escape_client_id",
    "portal_login",
    "unescape_client_id",
]
