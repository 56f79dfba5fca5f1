"""The checks of interop/plan9/run with OpenSSH: check.py DIRECTORY_OF_PROGRAMS TEMPORARY_DIRECTORY PART_OF_TITLE PORTS, the
ports of cpu, rcpu, the authentication server and an rcpu that offers p9sk1 alone."""

import os
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
import farm
from farm import TMP, Terminal, fails_with, refused, ssh_command, wait_for, write

PASSWORD = "glenda123"
CPU, RCPU, AUTH, OLD = sys.argv[4:8]


def command(name, text, data=b"", limit=120):
    return subprocess.run(ssh_command(name, "-T") + [text], input=data, capture_output=True, timeout=limit)


def commands_work(name):
    done = command(name, "echo 'it''s' out; echo err >&2; exit 3")
    assert (done.stdout, done.stderr, done.returncode) == (b"its out\n", b"err\n", 3), done
    for status in (0, 1, 42, 255):
        assert command(name, f"exit {status}").returncode == status
    done = command(name, "wc -c", b"12345")
    assert done.stdout.split() == [b"5"], done


def shell_works(name):
    with Terminal(name) as user:
        user.sees(f"A Plan 9 console by {name}, as glenda")
        # Backspace is taken back here, as the machine gets whole lines.
        user.types("echo $((6*7x\x7f))-\r")
        user.sees("42-")
        user.resize(132, 43)
        user.types("echo still-$((1+1))\r")
        user.sees("still-2")
        user.types("exit 5\r")
        user.ends(5)


def script_works(name):
    done = subprocess.run(ssh_command(name, "-T"), input=b"echo $((6*7))\nexit 9\n", capture_output=True, timeout=60)
    assert (done.stdout, done.returncode) == (b"42\n", 9), done


def interrupt_works(name):
    with Terminal(name, "trap 'echo caught; exit 7' TERM; echo rea''dy; while :; do sleep 0.1; done") as user:
        user.sees("ready")
        user.types("\x03")
        user.sees("caught")
        user.ends(7)


def end_of_file_works(name):
    with Terminal(name, "cat; echo be''hind") as user:
        user.types("one\r")
        user.sees("one\r\none\r\n")
        user.types("\x04")
        user.sees("behind")
        user.ends(0)


def bytes_are_clean(name):
    """64 MiB there and back, at the same time."""
    sent = os.urandom(64 << 20)
    done = command(name, "cat", sent, 300)
    assert done.returncode == 0 and done.stdout == sent, (done.returncode, len(done.stdout), done.stderr)


def background_is_left(name):
    begun = time.monotonic()
    done = command(name, "sleep 15 >/dev/null 2>&1 </dev/null & echo left")
    assert (done.stdout, done.returncode) == (b"left\n", 0), done
    assert time.monotonic() - begun < 10
    done = command(name, "sleep 15 & echo left")
    assert (done.stdout, done.returncode) == (b"left\n", 0), done
    assert time.monotonic() - begun < 14


def cut_is_no_success(name):
    """The machine's buildlet is killed, and with it the stream."""
    child = subprocess.Popen(ssh_command(name, "-T") + ["echo ready; exec sleep 1000"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout.readline() == b"ready\n"
    farm.buildlets[name].kill()
    said = child.communicate(timeout=60)
    assert child.returncode == 255, (child.returncode, said)


def user_leaves(name):
    """The end of ssh ends what it ran."""
    mark = f"{TMP}/{name}-left"
    child = subprocess.Popen(ssh_command(name, "-T") + [f"echo $$ >{mark}; echo ready; exec sleep 1000"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"ready\n"
    with open(mark) as file:
        process = int(file.read())
    child.kill()
    child.communicate()
    wait_for(lambda: not os.path.exists(f"/proc/{process}"))


def says_why(name, sentence, status):
    done = command(name, "true")
    assert sentence in done.stderr.decode() and done.returncode == status, done


def is_explained(name, sentence, *arguments):
    done = subprocess.run(ssh_command(name) + list(arguments), capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 1 and sentence in done.stderr.decode(), done


def forwarding_is_refused(name):
    said = refused(ssh_command(name, "-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:localhost:1"))
    assert "forwarding failed" in said, said


password = write("password", PASSWORD + "\n")
wrong = write("wrong", "something else\n")
old_cpu = f'protocol = "cpu"\nport = {CPU}\nauth = ["p9sk1"]'
rcpu = f'port = {RCPU}\nauth_port = {AUTH}'
account = f'user = "glenda"\npassword_file = "{password}"'
mistaken = f'user = "glenda"\npassword_file = "{wrong}"'
both = [CPU, RCPU, AUTH, OLD]
types = {
    "cpu": (both, f"{old_cpu}\nauth_port = {AUTH}\n{account}"),
    "rcpu": (both, f"{rcpu}\n{account}"),
    "owner-cpu": ([CPU], f'{old_cpu}\ntickets = "host-owner"\n{account}'),
    "owner-rcpu": ([RCPU], f'{rcpu}\ntickets = "host-owner"\n{account}'),
    "direct": ([], f'{rcpu}\nvia = "direct"\naddress = "127.0.0.1"\n{account}'),
    "standing": (None, f'{rcpu}\nvia = "direct"\naddress = "127.0.0.1"\n{account}'),
    "wrong-cpu": (both, f"{old_cpu}\nauth_port = {AUTH}\n{mistaken}"),
    "wrong-rcpu": (both, f"{rcpu}\n{mistaken}"),
    "old": (both, f"port = {OLD}\nauth_port = {AUTH}\n{account}"),
    "old-allowed": (both, f'port = {OLD}\nauth = ["dp9ik", "p9sk1"]\nauth_port = {AUTH}\n{account}'),
    "closed": ([], f"{rcpu}\n{account}"),
    "cut-cpu": (both, f"{old_cpu}\nauth_port = {AUTH}\n{account}"),
    "cut-rcpu": (both, f"{rcpu}\n{account}"),
}
checks = []
for name in ("cpu", "rcpu"):
    checks += [
        (f"{name}: commands, outputs and statuses", commands_work, name),
        (f"{name}: a shell on a terminal, resized", shell_works, name),
        (f"{name}: a script for a shell", script_works, name),
        (f"{name}: ^C interrupts", interrupt_works, name),
        (f"{name}: ^D ends the input", end_of_file_works, name),
        (f"{name}: 64 MiB each way", bytes_are_clean, name),
        (f"{name}: what is left in the background", background_is_left, name),
        (f"{name}: the user leaves", user_leaves, name),
        (f"{name}: tickets of the host owner", commands_work, f"owner-{name}"),
        (f"{name}: a wrong password", says_why, f"wrong-{name}", "does not know this user and password", 255),
        (f"{name}: the machine vanishes", cut_is_no_success, f"cut-{name}"),
    ]
checks += [
    ("rcpu: over a private network", commands_work, "direct"),
    ("rcpu: a machine without a buildlet", commands_work, "standing"),
    ("rcpu: the console is all that it has", farm.has_only_a_console, "standing", b"it has no sftp"),
    ("rcpu: p9sk1 is not spoken unless it is allowed", says_why, "old", "p9sk1 must be allowed in the configuration", 255),
    ("rcpu: p9sk1 where it is allowed", commands_work, "old-allowed"),
    ("a port that the buildlet does not open", says_why, "closed", "the machine cannot be reached", 255),
    ("a subsystem is explained", is_explained, "rcpu", "it has no subsystems", "-s", "netconf"),
    ("rsync is explained", is_explained, "rcpu", "use `sftp`, or `scp` without -O", "rsync", "--server", ".", "."),
    ("forwarding is refused", forwarding_is_refused, "rcpu"),
    *farm.file_checks("rcpu"),
    ("files: the console is not asked", farm.sftp_works, "closed"),
]
farm.run("conterm", types, checks, [PASSWORD])
