"""The broker's rules: sessions, subscriptions, routing, P2P.  Never the reactor, a transport or a Protocol."""
