"""i-PI's protocol: bytes, transports, and the client that answers."""
