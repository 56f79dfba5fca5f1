#!/usr/bin/env python3
"""Runs a command on a terminal of 40 x 100, resizes it to 33 x 77, and checks what `stty size` says on the other side.

usage: resize.py ssh -tt ... USER@HOST
"""
import fcntl, os, pty, select, signal, struct, sys, termios, time


def resize(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def wait_for(fd, text, seconds=20):
    """Reads until `text` has been seen; what follows it waits for the next call."""
    global seen
    end = time.time() + seconds
    while text not in seen:
        left = end - time.time()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            sys.exit(f"waited for {text!r}, saw {seen!r}")
        try:
            chunk = os.read(fd, 4096)
        except OSError:
            chunk = b""
        if not chunk:
            sys.exit(f"ended before {text!r}, saw {seen!r}")
        seen += chunk
    seen = seen[seen.index(text) + len(text):]


seen = b""
# Backslash and quotes keep the terminal's echo of the command apart from the output that is waited for.
script = "echo is\\ $(stty size); read x; echo was\\ $(stty size); tty; exit 5"
pid, fd = pty.fork()
if pid == 0:
    time.sleep(0.2)  # the parent sets the size first
    os.execvp(sys.argv[1], sys.argv[1:] + [script])
resize(fd, 40, 100)
wait_for(fd, b"is 40 100")
resize(fd, 33, 77)
os.kill(pid, signal.SIGWINCH)
time.sleep(0.5)  # the window change and the line below travel on different paths through ssh
os.write(fd, b"\n")
wait_for(fd, b"was 33 77")
wait_for(fd, b"/dev/")
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 5, status
