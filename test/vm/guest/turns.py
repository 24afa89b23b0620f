"""Times file operations in turns: reads lines "DIR WHAT SECONDS", prints for each "TURN N MEAN [PARTS]" in microseconds.

WHAT is `kept` (open and close of a file that is there) or `fresh` (a new file, closed, unlinked; PARTS are the three calls).
"""
import os
import sys
import time

now = time.perf_counter
number = 0


def kept(path, parts):
    os.close(os.open(path + "/kept", os.O_RDWR))


def fresh(path, parts):
    global number
    number += 1
    name = "%s/n%d" % (path, number)
    a = now()
    fd = os.open(name, os.O_RDWR | os.O_CREAT)
    b = now()
    os.close(fd)
    c = now()
    os.unlink(name)
    d = now()
    parts[0] += b - a
    parts[1] += c - b
    parts[2] += d - c


turn = 0
for line in sys.stdin:
    path, what, seconds = line.split()
    once = {"kept": kept, "fresh": fresh}[what]
    limit = float(seconds)
    parts = [0.0, 0.0, 0.0]
    count = 0
    began = now()
    while True:
        once(path, parts)
        count += 1
        took = now() - began
        if took >= limit:
            break
    turn += 1
    each = [took] + (parts if what == "fresh" else [])
    print("turn", turn, count, *[round(t / count * 1e6, 1) for t in each], flush=True)
