"""Evaluation: what methods make of test sets, measured, and shown as report and page."""
