"""The health room: what went wrong, what to do about it, and the records of every run. Never imports torch."""

from wan_fixes.health.breaker import CircuitBreaker
from wan_fixes.health.memory import MemoryStats, memory_stats
from wan_fixes.health.metrics import Metrics
from wan_fixes.health.recovery import ErrorRecoveryManager
from wan_fixes.health.taxonomy import ErrorType, FailurePattern, FailureRecord, RecoveryPolicy, RecoveryStrategy
from wan_fixes.health.text import mask_secrets, plain

__all__ = [
    "CircuitBreaker",
    "ErrorRecoveryManager",
    "ErrorType",
    "FailurePattern",
    "FailureRecord",
    "MemoryStats",
    "Metrics",
    "RecoveryPolicy",
    "RecoveryStrategy",
    "mask_secrets",
    "memory_stats",
    "plain",
]
