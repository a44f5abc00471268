"""A router of one's own: P2P within a tenant.

The topic ``{tenant}/to/{device}/{topic}`` reaches the client named ``{tenant}:{device}``.

    twistd -n p2pmqtt --p2p-mode tenant_router:TenantRouter      # with this directory on PYTHONPATH

or ``Broker(reactor, store, router=TenantRouter())`` when embedded.  A router is a function of the topic alone; the
broker keeps its answer with the topic's route.
"""

from __future__ import annotations

from zope.interface import implementer

from twisted_p2pmqtt import IP2PRouter, MalformedP2PTopic, P2PAddress


@implementer(IP2PRouter)
class TenantRouter:
    """``acme/to/pump7/set/speed`` goes to the client ``acme:pump7`` as ``set/speed``."""

    def resolve(self, topic: str) -> P2PAddress | None:
        """The address of a topic whose second level is ``to``; None for any other."""
        tenant, slash, rest = topic.partition("/")
        if not slash or not rest.startswith("to/"):
            return None
        device, _, business = rest[3:].partition("/")
        if not tenant or not device or not business:
            raise MalformedP2PTopic("tenant, device or topic is missing")
        return P2PAddress(f"{tenant}:{device}", business)
