"""A program on the kernel's dlmfs, told by lines on standard input; each answer begins with a word and carries the time
(milliseconds of CLOCK_MONOTONIC).

    kernel-user.py DIRECTORY
    open NAME pr|ex [try] | close NAME | drop NAME | write NAME TEXT | read NAME | hammer NAME MS ID [mixed] [drop] [free] | counter -

An open that waits blocks this whole program: use one program for each. "mixed": some of the turns take
PR; "drop": the name is unlinked after each; "free": without locks.
"""

import errno
import mmap
import os
import random
import struct
import sys
import time

DEVICE = "/dev/vda"
# Behind the blocks of the heartbeat.
OFFSET = 512 * 1024


def now():
    return time.monotonic() * 1000


def say(*words):
    print(*words, flush=True)


class Counter:
    """A block of the shared disk, past every cache: a counter, and who is just at it."""

    def __init__(self):
        self.fd = os.open(DEVICE, os.O_RDWR | os.O_DIRECT)
        self.view = memoryview(mmap.mmap(-1, 4096))[:512]

    def load(self):
        os.preadv(self.fd, [self.view], OFFSET)
        return struct.unpack_from("<II", self.view)

    def store(self, count, inside):
        struct.pack_into("<II", self.view, 0, count, inside)
        os.pwritev(self.fd, [self.view], OFFSET)


def write(counter, me, pause):
    """One increment, made easy to lose; returns how often somebody else was seen meanwhile."""
    count, inside = counter.load()
    seen = 1 if inside else 0
    counter.store(count, me)
    time.sleep(pause)
    if counter.load() != (count, me):
        seen += 1
    counter.store(count + 1, 0)
    return seen


def read(counter, pause):
    first = counter.load()
    time.sleep(pause)
    return 1 if first[1] or counter.load() != first else 0


def hammer(path, ms, me, more):
    counter = Counter()
    end = now() + ms
    done = reads = seen = longest = 0
    while now() < end:
        is_read = "mixed" in more and random.random() < 0.2
        asked = now()
        if "free" not in more:
            fd = os.open(path, (os.O_RDONLY if is_read else os.O_RDWR) | os.O_CREAT, 0o664)
        longest = max(longest, now() - asked)
        if is_read:
            seen += read(counter, 0.003)
            reads += 1
        else:
            seen += write(counter, me, 0.003)
            done += 1
        if "free" not in more:
            os.close(fd)
            if "drop" in more:
                os.unlink(path)
        time.sleep(random.random() * 0.02)
    say("hammered", done, reads, seen, round(longest), round(now()))


def main():
    root = sys.argv[1]
    held = {}
    say("ready", now())
    for line in sys.stdin:
        verb, name, *rest = line.split()
        path = f"{root}/{name}"
        try:
            if verb == "open":
                flags = os.O_CREAT | (os.O_RDONLY if rest[0] == "pr" else os.O_RDWR)
                if "try" in rest:
                    flags |= os.O_NONBLOCK
                say("asking", name, now())
                held[name] = os.open(path, flags, 0o664)
                say("granted", name, now())
            elif verb == "close":
                os.close(held.pop(name))
                say("closed", name, now())
            elif verb == "drop":
                if name in held:
                    os.close(held.pop(name))
                os.unlink(path)
                say("dropped", name, now())
            elif verb == "write":
                os.pwrite(held[name], rest[0].encode().ljust(64, b"\0"), 0)
                say("written", name, now())
            elif verb == "read":
                say("value", name, os.pread(held[name], 64, 0).rstrip(b"\0").decode() or "-", now())
            elif verb == "hammer":
                hammer(path, float(rest[0]), int(rest[1]), rest)
            elif verb == "counter":
                say("counter", *Counter().load(), now())
        except OSError as error:
            say("failed", name, errno.errorcode.get(error.errno, error.errno), now())


main()
