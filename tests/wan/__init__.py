"""Tests of the WAN room."""
