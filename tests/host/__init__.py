"""Tests inside a real OneTrainer checkout, with the real MGDS."""
