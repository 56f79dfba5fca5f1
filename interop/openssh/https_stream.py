#!/usr/bin/env python3
"""A ProxyCommand: the raw stream to a machine's SSH server through the coordinator's HTTPS side.

  https_stream.py PORT CA USER TOKEN INSTANCE ACCOUNT KEY KNOWN_HOSTS

USER, with TOKEN, holds INSTANCE; whoever holds KEY, the line of an `authorized_keys` file in the file KEY, may log in as
ACCOUNT. The machine's host key, which comes in the reply, is written to KNOWN_HOSTS for INSTANCE before the first byte is
passed on, so that ssh checks it.
"""

import base64
import os
import socket
import ssl
import sys
import threading


def request(user, token, instance, account, key):
    credentials = base64.b64encode(f"{user}:{token}".encode()).decode()
    return (
        "POST /connect-ssh HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: Upgrade\r\nUpgrade: ssh\r\n"
        f"Authorization: Basic {credentials}\r\nX-Buildlet-Proxy: {instance}\r\n"
        f"X-Go-Ssh-User: {account}\r\nX-Go-Authorized-Key: {key}\r\n\r\n"
    ).encode()


def read_head(stream):
    data = b""
    while b"\r\n\r\n" not in data:
        piece = stream.recv(4096)
        if not piece:
            sys.exit(f"no answer: {data!r}")
        data += piece
    head, rest = data.split(b"\r\n\r\n", 1)
    status, *lines = head.decode().split("\r\n")
    if " 101 " not in status:
        sys.exit(f"{status}: {rest.decode()}")
    headers = [line.split(": ", 1) for line in lines]
    return {name.lower(): value for name, value in headers}, rest


def write_all(data):
    while data:
        data = data[os.write(1, data):]


def upwards(stream):
    while data := os.read(0, 65536):
        stream.sendall(data)
    stream.unwrap()


def main():
    port, ca, user, token, instance, account, key, known_hosts = sys.argv[1:]
    with open(key) as file:
        key = " ".join(file.read().split()[:2])
    context = ssl.create_default_context(cafile=ca)
    plain = socket.create_connection(("localhost", int(port)))
    stream = context.wrap_socket(plain, server_hostname="localhost")
    stream.sendall(request(user, token, instance, account, key))
    headers, rest = read_head(stream)
    with open(known_hosts, "w") as file:
        file.write(f"{instance} {headers['x-ssh-host-key']}\n")
    threading.Thread(target=upwards, args=(stream,), daemon=True).start()
    write_all(rest)
    while data := stream.recv(65536):
        write_all(data)


main()
