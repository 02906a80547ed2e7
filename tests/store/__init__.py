"""Tests of the sample cache on disk."""
