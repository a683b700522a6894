"""Handlers to try out and to copy from: one waits for the network, one computes, some fan out."""

from penstock.examples.csv_stats import csv_stats
from penstock.examples.table_etl import extract, load, transform
from penstock.examples.word_count import word_count

__all__ = ["csv_stats", "extract", "load", "transform", "word_count"]
