"""The typed schema of option files: the only place that knows keys, types, units and defaults.

What a registered architecture, loss or metric accepts is read off its signature.
"""
