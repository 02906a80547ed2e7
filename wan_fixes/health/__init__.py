"""The health room: what went wrong, what to do about it, and the records of every run. Never imports torch."""

from wan_fixes.health.breaker import CircuitBreaker
from wan_fixes.health.memory import MemoryStats, memory_stats
from wan_fixes.health.metrics import Metrics, total
from wan_fixes.health.recovery import ErrorRecoveryManager
from wan_fixes.health.run_database import Run, RunDatabase
from wan_fixes.health.run_place import RUN_DATABASE_NAME, run_database_path
from wan_fixes.health.run_reader import RunReader
from wan_fixes.health.run_records import EventRecord, ModuleTime, RunRecord, SampleRecord, StepRecord
from wan_fixes.health.taxonomy import ErrorType, FailurePattern, FailureRecord, RecoveryPolicy, RecoveryStrategy
from wan_fixes.health.text import mask_secrets, plain

__all__ = [
    "RUN_DATABASE_NAME",
    "CircuitBreaker",
    "ErrorRecoveryManager",
    "ErrorType",
    "EventRecord",
    "FailurePattern",
    "FailureRecord",
    "MemoryStats",
    "Metrics",
    "ModuleTime",
    "RecoveryPolicy",
    "RecoveryStrategy",
    "Run",
    "RunDatabase",
    "RunReader",
    "RunRecord",
    "SampleRecord",
    "StepRecord",
    "mask_secrets",
    "memory_stats",
    "plain",
    "run_database_path",
    "total",
]
