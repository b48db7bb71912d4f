"""The one place where things happen: runs a plan's operations on an engine. Carries no decision."""

from consolidate.execute.executor import Executor
from consolidate.execute.writing import batches

__all__ = ["Executor", "batches"]
