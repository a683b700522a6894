"""Handlers to try out and to copy from: one that waits for the network, one that computes."""

from penstock.examples.csv_stats import csv_stats
from penstock.examples.word_count import word_count

__all__ = ["csv_stats", "word_count"]
