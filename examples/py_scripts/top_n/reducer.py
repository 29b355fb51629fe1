#!/usr/bin/env python3
"""Prints the N largest of what the mappers found, the largest first."""
import heapq
import os
import sys

N = int(os.environ.get("TOP_N", "10"))


def candidates(lines):
    for line in lines:
        _, name, number = line.rstrip("\n").split("\t")
        yield float(number), name, number


for _, name, number in heapq.nlargest(N, candidates(sys.stdin)):
    print(name, number, sep="\t")
