#!/usr/bin/python3
"""A client on paramiko, the SSH library of Ansible: prints what it sees, which is the same from every server.

usage: paramiko_peer.py PORT USER KEY_FILE DIRECTORY

Debian's paramiko is for Debian's Python, so the first line names that.
"""
import hashlib, os, sys, threading

import paramiko

port, user, key, directory = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.MissingHostKeyPolicy())
client.connect("127.0.0.1", port, user, key_filename=key, allow_agent=False, look_for_keys=False, timeout=20)


def run(command, stdin=b""):
    channel = client.get_transport().open_session()
    channel.exec_command(command)
    channel.sendall(stdin)
    channel.shutdown_write()
    errors = []
    reader = threading.Thread(target=lambda: errors.append(channel.makefile_stderr("rb").read()))
    reader.start()
    output = channel.makefile("rb").read()
    reader.join()
    return channel.recv_exit_status(), output, errors[0]


print(run("echo out; echo err >&2; exit 7"))
print(run("cat", b"x" * 100_000)[0:2] == (0, b"x" * 100_000))
print(run("kill -9 $$")[0])
many = [threading.Thread(target=lambda n=n: results.append(run(f"exit {n}")[0])) for n in range(8)]
results = []
for thread in many:
    thread.start()
for thread in many:
    thread.join()
print(sorted(results))

terminal = client.get_transport().open_session()
terminal.get_pty("vt100", 90, 30)
terminal.exec_command("echo $TERM; stty size; exit 3")
print(terminal.makefile("rb").read(), terminal.recv_exit_status())

data = os.urandom(4 << 20)
sftp = client.open_sftp()
sftp.mkdir(directory)
with sftp.open(directory + "/f", "wb") as out:
    out.set_pipelined(True)
    out.write(data)
with sftp.open(directory + "/f", "rb") as back:
    back.prefetch()
    print(hashlib.sha256(back.read()).digest() == hashlib.sha256(data).digest())
sftp.symlink("f", directory + "/link")
print(sorted(sftp.listdir(directory)), sftp.readlink(directory + "/link"), sftp.stat(directory + "/f").st_size)
try:
    sftp.open(directory + "/none")
except OSError as error:
    print(error.errno)
sftp.remove(directory + "/link")
sftp.remove(directory + "/f")
sftp.rmdir(directory)
client.close()
