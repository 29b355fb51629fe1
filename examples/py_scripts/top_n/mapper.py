#!/usr/bin/env python3
"""Input: `name TAB number` a line. Prints this split's N largest, all under one key.

N comes from the job's environment (TOP_N, default 10). Run with one reducer.
"""
import heapq
import os
import sys

N = int(os.environ.get("TOP_N", "10"))


def numbered(lines):
    for line in lines:
        name, _, number = line.rstrip("\n").rpartition("\t")
        yield float(number), name, number


for _, name, number in heapq.nlargest(N, numbered(sys.stdin)):
    print("top", name, number, sep="\t")
