"""The health room: what went wrong, what to do about it, and the records of every run. Never imports torch."""

from wan_fixes.health.alerts import Alert
from wan_fixes.health.breaker import CircuitBreaker
from wan_fixes.health.memory import MemoryStats, memory_stats
from wan_fixes.health.metrics import Metrics, merged, total
from wan_fixes.health.monitor import RunMonitor
from wan_fixes.health.recovery import ErrorRecoveryManager
from wan_fixes.health.run import Run
from wan_fixes.health.run_database import RunDatabase
from wan_fixes.health.run_place import RUN_DATABASE_NAME, run_database_path
from wan_fixes.health.run_reader import RunReader
from wan_fixes.health.run_records import (
    EventRecord,
    GaugeRecord,
    RunRecord,
    SampleGroup,
    SampleRecord,
    StepRecord,
)
from wan_fixes.health.taxonomy import ErrorType, FailurePattern, FailureRecord, RecoveryPolicy, RecoveryStrategy
from wan_fixes.health.text import mask_secrets, plain

__all__ = [
    "RUN_DATABASE_NAME",
    "Alert",
    "CircuitBreaker",
    "ErrorRecoveryManager",
    "ErrorType",
    "EventRecord",
    "FailurePattern",
    "FailureRecord",
    "GaugeRecord",
    "MemoryStats",
    "Metrics",
    "RecoveryPolicy",
    "RecoveryStrategy",
    "Run",
    "RunDatabase",
    "RunMonitor",
    "RunReader",
    "RunRecord",
    "SampleGroup",
    "SampleRecord",
    "StepRecord",
    "mask_secrets",
    "memory_stats",
    "merged",
    "plain",
    "run_database_path",
    "total",
]
