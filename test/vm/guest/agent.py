"""Runs commands for the host: one connection = one process, ended when the connection ends.

The host sends one line of JSON: {"argv": [...], "env": {...}, "uid": N}. Afterwards its bytes are the process's standard input (one
frame each: length[4] little endian, bytes; length 0 = end of input). Back come frames: kind[1] length[4] bytes, with the
kinds o (standard output), e (standard error), x (the end: exit code or minus the signal, as text).
A process that cannot be killed (blocked in a dlmfs open) costs only its own connection.
"""

import json
import os
import select
import signal
import socket
import struct
import sys


def frame(kind, data):
    return kind + struct.pack("<I", len(data)) + data


def read_exactly(conn, n):
    data = b""
    while len(data) < n:
        more = conn.recv(n - len(data))
        if not more:
            return None
        data += more
    return data


def serve(conn):
    line = b""
    while not line.endswith(b"\n"):
        c = conn.recv(1)
        if not c:
            return
        line += c
    order = json.loads(line)
    in_r, in_w = os.pipe()
    out_r, out_w = os.pipe()
    err_r, err_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.dup2(in_r, 0)
            os.dup2(out_w, 1)
            os.dup2(err_w, 2)
            os.closerange(3, 256)
            if order.get("uid"):
                os.setgid(order["uid"])
                os.setuid(order["uid"])
            os.environ.update(order.get("env") or {})
            os.execvp(order["argv"][0], order["argv"])
        except BaseException as error:
            os.write(2, f"agent: {error}\n".encode())
        os._exit(127)
    for fd in (in_r, out_w, err_w):
        os.close(fd)
    conn.sendall(frame(b"p", str(pid).encode()))
    watched = {conn.fileno(): "c", out_r: b"o", err_r: b"e"}
    ended = None
    while True:
        ready, _, _ = select.select(list(watched), [], [], 0.05)
        for fd in ready:
            kind = watched[fd]
            if kind == "c":
                head = read_exactly(conn, 4)
                if head is None:
                    kill(pid)
                    return
                size = struct.unpack("<I", head)[0]
                if size == 0:
                    if in_w >= 0:
                        os.close(in_w)
                    in_w = -1
                else:
                    data = read_exactly(conn, size)
                    if data is None:
                        kill(pid)
                        return
                    if in_w >= 0:
                        try:
                            os.write(in_w, data)
                        except BrokenPipeError:
                            pass
            else:
                data = os.read(fd, 65536)
                if data:
                    conn.sendall(frame(kind, data))
                else:
                    os.close(fd)
                    del watched[fd]
        if ended is None:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                ended = os.waitstatus_to_exitcode(status)
        # What the process left running may keep its output open for ever.
        elif not ready or len(watched) == 1:
            conn.sendall(frame(b"x", str(ended).encode()))
            return


def kill(pid):
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass


def main():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("0.0.0.0", 5000))
    server.listen(64)
    print("guest: agent", flush=True)
    while True:
        conn, _ = server.accept()
        if os.fork() == 0:
            server.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                serve(conn)
            except (BrokenPipeError, ConnectionError):
                pass
            finally:
                conn.close()
                sys.stdout.flush()
            os._exit(0)
        conn.close()


main()
