"""Detect gradient problems in training, diagnose whole records, and trace a NaN to its layer."""
