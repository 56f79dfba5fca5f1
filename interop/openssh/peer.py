#!/usr/bin/env python3
"""Both ends of a connection that something forwards in between.

usage: peer.py echo tcp FILE     listens on a free port, whose number it writes to FILE, and sends everything back
       peer.py echo unix PATH    the same on a Unix socket
       peer.py flood tcp FILE    listens as well, and sends without end
       peer.py deaf tcp PORT     connects and reads nothing
       peer.py send tcp PORT     sends standard input, ends its direction, and prints what comes back
       peer.py send unix PATH
       peer.py send socks PORT TARGET    the same to localhost:TARGET through a SOCKS 5 proxy
"""
import os, socket, struct, sys, threading, time


def echo(conn):
    with conn:
        while data := conn.recv(65536):
            conn.sendall(data)
        conn.shutdown(socket.SHUT_WR)


def flood(conn):
    with conn:
        try:
            while True:
                conn.sendall(bytes(65536))
        except OSError:
            pass


def serve(listener, answer):
    while True:
        conn, _ = listener.accept()
        threading.Thread(target=answer, args=(conn,), daemon=True).start()


def listen(file):
    listener = socket.create_server(("127.0.0.1", 0))
    with open(file + ".new", "w") as out:
        out.write(str(listener.getsockname()[1]))
    os.rename(file + ".new", file)
    return listener


def exactly(conn, count):
    data = b""
    while len(data) < count:
        piece = conn.recv(count - len(data))
        if not piece:
            sys.exit("the proxy ended")
        data += piece
    return data


def through_socks(port, target):
    conn = socket.create_connection(("127.0.0.1", port))
    conn.sendall(b"\x05\x01\x00")
    assert exactly(conn, 2) == b"\x05\x00"
    host = b"localhost"
    conn.sendall(b"\x05\x01\x00\x03" + bytes([len(host)]) + host + struct.pack(">H", target))
    reply = exactly(conn, 4)
    assert reply[1] == 0, f"the proxy refuses with {reply[1]}"
    exactly(conn, {1: 4, 4: 16}[reply[3]] + 2)
    return conn


def send(conn):
    def write():
        while data := sys.stdin.buffer.read(65536):
            conn.sendall(data)
        conn.shutdown(socket.SHUT_WR)

    writer = threading.Thread(target=write)
    writer.start()
    while data := conn.recv(65536):
        sys.stdout.buffer.write(data)
    writer.join()


def unix(path):
    conn = socket.socket(socket.AF_UNIX)
    conn.connect(path)
    return conn


match sys.argv[1:]:
    case ["echo", "tcp", file]:
        serve(listen(file), echo)
    case ["flood", "tcp", file]:
        serve(listen(file), flood)
    case ["deaf", "tcp", port]:
        conn = socket.create_connection(("127.0.0.1", int(port)))
        while True:
            time.sleep(60)
    case ["echo", "unix", path]:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        serve(listener, echo)
    case ["send", "tcp", port]:
        send(socket.create_connection(("127.0.0.1", int(port))))
    case ["send", "unix", path]:
        send(unix(path))
    case ["send", "socks", port, target]:
        send(through_socks(int(port), int(target)))
    case _:
        sys.exit(__doc__)
