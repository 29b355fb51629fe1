#!/usr/bin/env python3
"""Prints `word TAB 1` for every word of its input."""
import re
import sys

WORD = re.compile(r"[^\W_]+")

for line in sys.stdin.buffer:
    for word in WORD.findall(line.decode("utf-8", "replace").lower()):
        print(f"{word}\t1")
