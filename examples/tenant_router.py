"""A router of one's own: P2P within a tenant, ``{tenant}/to/{device}/{topic}``, for clients ``{tenant}:{device}``.

    twistd -n p2pmqtt --p2p-mode tenant_router:TenantRouter      # with this directory on PYTHONPATH

or ``Broker(reactor, store, router=TenantRouter())`` when embedded.  A router is a function of the topic alone; the
broker keeps its answer with the topic's route.  Who may send to whom is the avatar's to say (``may_send_to``): it gets
the target, ``acme:pump7``, and the business topic apart.
"""

from __future__ import annotations

from zope.interface import implementer

from twisted_p2pmqtt import IP2PRouter, MalformedP2PTopic, P2PAddress, escape_client_id, unescape_client_id


class TenantAddress(P2PAddress):
    """With ``deliver_topic = "reply"`` an answer goes back in the tenants' own form."""

    def reply_topic(self, sender: str) -> str:
        """``acme/to/app/...`` for the sender ``acme:app``; any other id as the part that it is."""
        tenant, _, device = sender.partition(":")
        return f"{escape_client_id(tenant)}/to/{escape_client_id(device)}/{self.topic}"


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
        return TenantAddress(f"{unescape_client_id(tenant)}:{unescape_client_id(device)}", business)
