"""Whoever says that it implements an interface does, by zope's reckoning."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.cred.credentials import IAnonymous, IUsernamePassword
from twisted.internet.task import Clock
from zope.interface import Interface, Invalid
from zope.interface.verify import verifyClass, verifyObject

import twisted_p2pmqtt
from tests.core.support import Avatar, SlowStore, client
from twisted_p2pmqtt import interfaces
from twisted_p2pmqtt.cluster.solo import SoloCluster
from twisted_p2pmqtt.core.broker import Broker
from twisted_p2pmqtt.core.connection import Connection
from twisted_p2pmqtt.core.credentials import MQTTCredentials
from twisted_p2pmqtt.core.endpoints import Endpoint
from twisted_p2pmqtt.core.local import LocalSubscription
from twisted_p2pmqtt.core.observers import Observer
from twisted_p2pmqtt.core.p2p import BothP2PRouter, NoP2PRouter, PrefixP2PRouter, SuffixP2PRouter
from twisted_p2pmqtt.core.session import Session
from twisted_p2pmqtt.interfaces import (
    IBroker,
    IBrokerObserver,
    IClientAvatar,
    ICluster,
    IConnection,
    IMQTTCredentials,
    IP2PRouter,
    IStore,
    ISubscriber,
)
from twisted_p2pmqtt.store.memory import MemoryStore
from twisted_p2pmqtt.testing import make_broker


def made() -> dict[str, tuple[Any, Any]]:
    """An object for each implementer in the core and beside it."""
    broker = make_broker(Clock())
    connected = client(broker, "dev")
    return {
        "Broker": (IBroker, broker),
        "PrefixP2PRouter": (IP2PRouter, PrefixP2PRouter()),
        "SuffixP2PRouter": (IP2PRouter, SuffixP2PRouter()),
        "BothP2PRouter": (IP2PRouter, BothP2PRouter()),
        "NoP2PRouter": (IP2PRouter, NoP2PRouter()),
        "Session": (ISubscriber, broker.sessions["dev"]),
        "LocalSubscription": (ISubscriber, broker.subscribe("t", print)),
        "Endpoint": (ISubscriber, broker.register_endpoint("service", print)),
        "Connection": (IConnection, connected.protocol.connection),
        "Observer": (IBrokerObserver, Observer()),
        "MQTTCredentials": (IMQTTCredentials, MQTTCredentials("dev")),
        "MemoryStore": (IStore, MemoryStore()),
        "SlowStore of these tests": (IStore, SlowStore()),
        "Avatar of these tests": (IClientAvatar, Avatar()),
        "SoloCluster": (ICluster, SoloCluster()),
    }


@pytest.mark.parametrize("name", made())
def test_objects(name: str) -> None:
    interface, instance = made()[name]
    assert interface.providedBy(instance)
    verifyObject(interface, instance)


@pytest.mark.parametrize(
    ("interface", "implementer"),
    [
        (IBroker, Broker),
        (IP2PRouter, PrefixP2PRouter),
        (IP2PRouter, SuffixP2PRouter),
        (IP2PRouter, BothP2PRouter),
        (IP2PRouter, NoP2PRouter),
        (IBrokerObserver, Observer),
        (ICluster, SoloCluster),
    ],
)
def test_classes(interface: Any, implementer: type) -> None:
    verifyClass(interface, implementer)


class Undeclared:
    def resolve(self, topic: str) -> None:
        """Does all, and says nowhere what it is."""


@pytest.mark.parametrize("router", [Undeclared(), PrefixP2PRouter, "prefix"])
def test_a_router_that_is_none_is_told_when_the_broker_is_made(router: Any) -> None:
    with pytest.raises(Invalid):
        make_broker(Clock(), router=router)


@pytest.mark.parametrize("implementer", [Session, LocalSubscription, Endpoint, Connection])
def test_the_hot_objects_have_no_dict(implementer: type) -> None:
    """A fleet of sessions fits into memory because of it."""
    assert "__dict__" not in dir(implementer)


def test_credentials_provide_what_they_have() -> None:
    named: Any = MQTTCredentials("dev", b"me", b"secret")
    nobody: Any = MQTTCredentials("dev")
    assert IUsernamePassword.providedBy(named)
    assert not IAnonymous.providedBy(named)
    assert IAnonymous.providedBy(nobody)
    assert not IUsernamePassword.providedBy(nobody)
    verifyObject(IUsernamePassword, named)
    tried = ((named, b"secret"), (named, b"No"), (nobody, b""))
    answers = [each.checkPassword(word) for each, word in cast(Any, tried)]
    assert tuple(answers) == (
        True,
        False,
        False,
    )


def test_every_interface_says_what_its_methods_do() -> None:
    found = [each for each in vars(interfaces).values() if isinstance(each, type(Interface)) and each is not Interface]
    assert len(found) >= 10
    for interface in found:
        assert interface.__doc__, interface
        for name, attribute in interface.namesAndDescriptions():
            assert attribute.__doc__, f"{interface.__name__}.{name}"


def test_the_public_names_are_there() -> None:
    for name in twisted_p2pmqtt.__all__:
        assert getattr(twisted_p2pmqtt, name) is not None
