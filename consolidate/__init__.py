"""consolidate: the servers of many old machines on one host, each in its own container."""

__version__ = "0.1.0"
