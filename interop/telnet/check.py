"""The servers and the checks of interop/telnet/run: check.py DIRECTORY_OF_PROGRAMS TEMPORARY_DIRECTORY [PART_OF_TITLE]."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
import farm
from farm import TMP, Terminal, children, fails_with, listener, ssh_command, wait_for, write

USER, PASSWORD = "gopher", "pass word!"


# --- servers ---------------------------------------------------------------------------------------------------------


def serve(handler):
    """Serves each connection in a thread, and returns the port."""
    sock, port = listener()

    def accept():
        while True:
            conn, _ = sock.accept()
            threading.Thread(target=handler, args=(conn,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return port


def program(*command):
    """Serves each connection with a program, as inetd does."""

    def handler(conn):
        with conn:
            child = subprocess.Popen(
                command, stdin=conn, stdout=conn, stderr=subprocess.DEVNULL, start_new_session=True,
                # A shell that was started in the background has it ignored, and so would its children.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        children.append(child)
        child.wait()

    return serve(handler)


WINDOWS = bytes.fromhex("fffb01fffb03fffd27fffd1ffffd00fffb00")
windows_sessions = threading.BoundedSemaphore(2)


def windows(ntlm):
    """Windows Server 2008 R2: mute before AUTH is answered, CR LF, two connections at most."""

    def handler(conn):
        conn.settimeout(30)
        if not windows_sessions.acquire(blocking=False):
            conn.sendall(b"\r\nNo more connections are allowed to telnet server. Please try again later.")
            return conn.close()
        try:
            conn.sendall((b"\xff\xfd\x25" if ntlm else b"") + WINDOWS)
            got = b""
            while b"\xff\xfb\x1f" not in got or (ntlm and b"\xff\xfc\x25" not in got):
                got += conn.recv(4096)
            conn.sendall(b"Welcome to Microsoft Telnet Service \r\n\n\rlogin: ")
            # BINARY is on in both directions, so Enter is CR alone.
            def line():
                text = b""
                while not text.endswith(b"\r"):
                    piece = conn.recv(1)
                    if not piece:
                        raise OSError
                    text += piece
                return re.sub(rb"\xff\xfa.*?\xff\xf0|\xff[\xfb-\xfe].", b"", text[:-1], flags=re.S)

            user = line()
            conn.sendall(user + b"\n\rpassword: ")
            if (user, line()) != (USER.encode(), PASSWORD.encode()):
                conn.sendall(b"\n\rThe handle is invalid.\n\r\n\rLogin Failed\n\r")
                return
            conn.sendall(b"\x1b[1;1H*=====\r\nMicrosoft Telnet Server.\r\n*=====\r\nC:\\>")
            while True:
                command = line()
                conn.sendall(command + b"\r\nran " + command + b"\r\nC:\\>")
                if command == b"exit":
                    return
        except OSError:
            pass
        finally:
            windows_sessions.release()
            conn.close()

    return serve(handler)


def mute(conn):
    conn.recv(1)


def closes(conn):
    conn.sendall(b"\xff\xfb\x01\r\nThis system is closed for maintenance.\r\n")
    conn.close()


def console(conn):
    """A serial console behind plain TCP, which knows nothing of telnet."""
    conn.sendall(b"=> ")
    text = b""
    while piece := conn.recv(256):
        text += piece
        conn.sendall(piece.replace(b"\r", b"\r\n"))
        if text.endswith(b"\r"):
            conn.sendall(b"got %r\r\n=> " % text)
            text = b""


def logged_in(name):
    terminal = Terminal(name)
    terminal.sees(r"reached by telnet")
    terminal.types("echo $((6*7))-; stty -echo\r")
    terminal.sees(r"42-")
    return terminal


def shell_works(name):
    with logged_in(name) as user:
        assert PASSWORD.encode() not in user.text
        user.types("exit\r")
        user.ends(0)


def size_follows(name):
    with logged_in(name) as user:
        user.types("stty size\r")
        user.sees("30 100")
        user.resize(132, 43)
        # The new size takes its way while the shell asks.
        wait_for(lambda: (user.types("stty size\r"), user.read(1), b"43 132" in user.text)[-1])


def interrupt_works(name):
    with logged_in(name) as user:
        user.types("sleep 1000; echo slept-$?\r")
        time.sleep(0.5)
        user.types("\x03")
        user.types("echo after-$?\r")
        user.sees("after-130", 10)


def byte_255_arrives(name):
    with logged_in(name) as user:
        user.types("stty raw; head -c 3 | od -An -tx1; stty sane; stty -echo\r")
        time.sleep(0.5)
        user.types(b"a\xffb")
        user.sees("61 ff 62")
        user.types("printf 'x\\377\\377y'\r")
        user.sees(rb"x\xff\xffy")


def ten_mebibytes(name):
    """Random text, counted and summed on the other side."""
    with logged_in(name) as user:
        user.types("head -c 7864320 /dev/urandom | base64 -w0 >$HOME/down; md5sum <$HOME/down; echo begin; cat $HOME/down; echo; echo '#end#'\r")
        digest = user.sees("([0-9a-f]{32})", 60)[1].decode()
        user.sees("begin\r\n")
        while b"\r\n#end#" not in user.text[-64:]:
            assert user.read(30), len(user.text)
        import hashlib
        body = user.text[: user.text.rindex(b"\r\n#end#")]
        assert len(body) == 10 << 20, len(body)
        assert hashlib.md5(body).hexdigest() == digest
        user.text = b""
        user.types("stty raw; head -c 10485760 | md5sum; stty sane; stty -echo\r")
        time.sleep(1)
        user.types(body)
        user.sees(digest, 60)


def refuses(name, *command):
    done = subprocess.run(ssh_command(name) + list(command), capture_output=True, stdin=subprocess.DEVNULL, timeout=30)
    assert done.returncode == 1 and b"reached by telnet" in done.stderr, done


# --- files -----------------------------------------------------------------------------------------------------------


def windows_session(name):
    with Terminal(name) as user:
        user.sees(r"C:\\>")
        user.types("ver\r")
        user.sees("ran ver")
        user.types("exit\r")
        user.ends(0)


def windows_limit(name):
    with Terminal(name) as one, Terminal(name) as two:
        one.sees(r"C:\\>"), two.sees(r"C:\\>")
        fails_with(name, "No more connections are allowed", 1)


def console_works(name):
    with Terminal(name) as user:
        user.sees("=> ")
        user.types("help\r")
        user.sees(r"got b'help\\r'")


def manual_login(name):
    with Terminal(name) as user:
        user.sees("login: ")
        user.types(USER + "\r")
        user.sees("assword: ")
        user.types(PASSWORD + "\r")
        user.sees("welcome")
        user.types("exit\r")
        user.ends(0)


# --- everything ------------------------------------------------------------------------------------------------------

password = write("password", PASSWORD + "\n")
wrong = write("wrong", "something else\n")
login = write("login", f"""#!/bin/bash
printf 'login: '; read -r user
stty -echo; printf 'Password: '; IFS= read -r word; stty echo; echo
[ "$user" = {USER} ] && [ "$word" = '{PASSWORD}' ] || {{ sleep 1; echo; echo 'Login incorrect'; exit 1; }}
echo welcome
export HOME={TMP} PS1='$ ' HISTFILE=
cd "$HOME"
exec bash --norc --noprofile -i
""", 0o755)
root = os.path.join(TMP, "root")


def found(name):
    for directory, _, files in os.walk(root):
        if name in files and os.access(path := os.path.join(directory, name), os.X_OK):
            return path
    raise SystemExit(f"no {name} in the packages")


pem = f"{TMP}/server.pem"
subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", pem, "-out", f"{TMP}/cert.pem",
                "-days", "1", "-subj", "/CN=localhost"], check=True, capture_output=True)
with open(pem, "a") as file:
    file.write(open(f"{TMP}/cert.pem").read())
inetutils = program(found("telnetd"), "-h", "-E", login)
busybox = program(found("busybox"), "telnetd", "-i", "-l", login)
netkit = program(found("in.telnetd"), "-z", f"cert={pem}", "-L", login)
auto = f'user = "{USER}"\npassword_file = "{password}"'
direct = 'via = "direct"\naddress = "127.0.0.1"'
ports = {
    "inetutils": inetutils, "busybox": busybox, "netkit": netkit, "manual": inetutils, "wrong": inetutils, "ntlm": windows(True),
    "windows": windows(False), "winwrong": windows(False), "mute": serve(mute), "closes": serve(closes),
    "console": serve(console), "standing": busybox,
}
mistaken = f'user = "{USER}"\npassword_file = "{wrong}"'
settings = {
    "busybox": f"{auto}\n{direct}", "manual": 'login = "manual"', "wrong": mistaken, "winwrong": mistaken,
    "mute": f"{auto}\nlogin_seconds = 2", "console": 'login = "none"', "standing": f"{auto}\n{direct}",
}
types = {name: (None if name == "standing" else [port], f"port = {port}\n{settings.get(name, auto)}") for name, port in ports.items()}
checks = []
for server in ("inetutils", "busybox", "netkit"):
    checks += [(f"{server}: a login and a shell", shell_works, server),
               (f"{server}: stty size follows the window", size_follows, server),
               (f"{server}: ^C ends a sleep", interrupt_works, server),
               (f"{server}: byte 255 arrives", byte_255_arrives, server),
               (f"{server}: 10 MiB each way", ten_mebibytes, server)]
checks += [
    ("inetutils: the user logs in", manual_login, "manual"),
    ("inetutils: a wrong password", fails_with, "wrong", "refused the login: Login incorrect", 1),
    ("inetutils: a command is explained", refuses, "inetutils", "ls"),
    ("inetutils: a subsystem is explained", refuses, "inetutils", "-s", "netconf"),
    *farm.file_checks("inetutils"),
    ("files: no server is asked", farm.sftp_works, "mute"),
    ("windows: NTLM is refused, and the login goes on", windows_session, "ntlm"),
    ("windows: without NTLM", windows_session, "windows"),
    ("windows: a wrong password", fails_with, "winwrong", "refused the login", 1),
    ("windows: two connections and no more", windows_limit, "windows"),
    ("a server that stays mute", fails_with, "mute", "did not ask for an account and a password in time", 255),
    ("a server that closes during the login", fails_with, "closes", "This system is closed for maintenance", 1),
    ("a console that does not speak telnet", console_works, "console"),
    ("a machine without a buildlet: a login and a shell", shell_works, "standing"),
    ("a machine without a buildlet: its console is all there is", farm.has_only_a_console, "standing", b"reached by telnet"),
    ("a machine without a buildlet: the next lease", shell_works, "standing"),
]
farm.run("telnet", types, checks, [PASSWORD])
