"""Evaluation: methods on test sets, measured, and shown as report and page."""
