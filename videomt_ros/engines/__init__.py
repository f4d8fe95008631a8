"""Engines: the ways to run the network, which a stream uses without knowing which one it has."""
