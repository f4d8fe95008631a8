"""Engines: the ways to run the network, which a stream uses without knowing which one it has."""

ENGINE_NAMES = ('eager', 'compiled', 'onnxruntime')
"""Names of the engines, as users write them; `engines.build` builds them, and needs torch."""
