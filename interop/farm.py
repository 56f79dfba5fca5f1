"""What the checks of consoles share: a coordinator with a buildlet and an instance for each kind of machine, a user at a
terminal, files to copy, and a line for each check. The first two arguments of the program that imports it are the directory
of programs and a temporary directory, the third may be a part of the titles of the checks to run."""

import fcntl
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time

BIN, TMP = sys.argv[1], sys.argv[2]
children = []
buildlets = {}
ssh_port = None
gomote_environment = None


def listener():
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen(16)
    return sock, sock.getsockname()[1]


def write(name, text, mode=0o600):
    path = os.path.join(TMP, name)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)
    return path


def secret(kind):
    lines = subprocess.run([f"{BIN}/coordinator", "secret", kind], capture_output=True, text=True, check=True)
    return lines.stdout.splitlines()[:2]


def start(name, command):
    log = open(os.path.join(TMP, f"{name}.log"), "w")
    child = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    children.append(child)
    return child


def wait_for(what, limit=30):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def farm(backend, types):
    """Starts a coordinator, and a buildlet for each host type; makes an instance of each. A type is the ports that its
    buildlet may reach, or None for a machine without one, and the settings of its backend."""
    global ssh_port, gomote_environment
    machine_key, machine_hash = secret("machine")
    token, token_hash = secret("user")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{TMP}/alice"], check=True)
    https, ssh = listener(), listener()
    https[0].close(), ssh[0].close()
    config = f"""data_dir = "{TMP}/data"
[listen]
https = "127.0.0.1:{https[1]}"
ssh = "127.0.0.1:{ssh[1]}"
[users.alice]
{token_hash}
key_files = ["{TMP}/alice.pub"]
"""
    for name, (ports, settings) in types.items():
        config += f'[host_types.host-{name}]\n{machine_hash}\nbackend = "{backend}"\n'
        config += f"[host_types.host-{name}.{backend}]\n{settings}\n"
        if ports is None:
            config += f"[host_types.host-{name}.machines.m-{name}]\nbuildlet = false\n"
        config += f'[builder_types.{name}]\nhost_type = "host-{name}"\n'
    path = write("farm.toml", config)
    start("coordinator", [f"{BIN}/coordinator", "serve", "--config", path])
    said = wait_for(lambda: re.search(r"^pin +(\S+).*^host +([^\n]+)", content(f"{TMP}/coordinator.log").decode(), re.S | re.M))
    key = write("machine.key", machine_key + "\n")
    for name, (ports, _) in types.items():
        if ports is None:
            continue
        allowed = [argument for port in ports for argument in ("--allow-tcp-port", str(port))]
        buildlets[name] = start(f"buildlet-{name}", [
            f"{BIN}/buildlet", "--coordinator", f"https://localhost:{https[1]}", "--pin", said[1], "--host-type",
            f"host-{name}", "--hostname", f"m-{name}", "--key-file", key, "--workdir", f"{TMP}/work-{name}", *allowed])
    gomote = write("gomote.toml", f"""server = "https://localhost:{https[1]}"
pin = "{said[1]}"
user = "alice"
token = "{token}"
""")
    gomote_environment = dict(os.environ, GOMOTE_CONFIG=gomote)
    for name in types:
        assert run_gomote("create", name).returncode == 0, name
    write("known_hosts", f"[127.0.0.1]:{ssh[1]} {said[2]}\n")
    ssh_port = ssh[1]


def run_gomote(*arguments):
    return subprocess.run([f"{BIN}/gomote", *arguments], env=gomote_environment, capture_output=True, stdin=subprocess.DEVNULL,
                          timeout=60)


def has_only_a_console(name, refusal):
    """Of a machine without a buildlet: everything else is refused with a sentence, and the next user gets it at once."""
    instance = f"user-alice-{name}-0"
    done = run_gomote("run", "--system", instance, "true")
    assert done.returncode != 0 and b"runs no buildlet; it is used with ssh" in done.stderr, done
    done = subprocess.run(ssh_command(name, "-s") + ["sftp"], capture_output=True, stdin=subprocess.DEVNULL, timeout=30)
    assert done.returncode == 1 and refusal in done.stderr, done
    assert run_gomote("destroy", instance).returncode == 0
    assert run_gomote("create", name).stdout.decode().strip() == instance


def ssh_command(name, *options):
    return ["ssh", "-p", str(ssh_port), "-i", f"{TMP}/alice", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-e",
            "none", "-o", f"UserKnownHostsFile={TMP}/known_hosts", "-F", "none", *options,
            f"user-alice-{name}-0@127.0.0.1"]


class Terminal:
    """A user at a terminal of 100 by 30."""

    def __init__(self, name, *command):
        self.master, slave = pty.openpty()
        self.resize(100, 30)
        self.child = subprocess.Popen([*ssh_command(name, "-tt"), *command], stdin=slave, stdout=slave, stderr=slave,
                                      start_new_session=True, env=dict(os.environ, TERM="vt220"))
        os.close(slave)
        self.text = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()
        os.close(self.master)

    def resize(self, columns, rows):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if hasattr(self, "child"):
            self.child.send_signal(signal.SIGWINCH)

    def types(self, text):
        text = text if isinstance(text, bytes) else text.encode()
        while text:
            text = text[os.write(self.master, text):]

    def read(self, limit):
        if select.select([self.master], [], [], limit)[0]:
            try:
                self.text += os.read(self.master, 65536)
                return True
            except OSError:
                pass
        return False

    def sees(self, pattern, limit=20):
        end = time.monotonic() + limit
        pattern = pattern if isinstance(pattern, bytes) else pattern.encode()
        while not (found := re.search(pattern, self.text)):
            if time.monotonic() > end or not (self.read(end - time.monotonic()) or self.child.poll() is None):
                raise AssertionError(f"no {pattern!r} in {self.text[-1500:]!r}")
        self.text = self.text[found.end():]
        return found

    def ends(self, status, limit=20):
        end = time.monotonic() + limit
        while self.child.poll() is None and time.monotonic() < end:
            self.read(0.1)
        assert self.child.poll() == status, f"status {self.child.poll()}, {self.text[-800:]!r}"


def fails_with(name, sentence, status):
    with Terminal(name) as user:
        user.sees(sentence, 30)
        user.ends(status)


def options():
    return ["-q", "-P", str(ssh_port), "-i", f"{TMP}/alice", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-F", "none",
            "-o", f"UserKnownHostsFile={TMP}/known_hosts"]


def copies(*paths, expected=0):
    """scp, where @NAME:PATH is a path on an instance."""
    paths = [instance(path[1:]) if path.startswith("@") else path for path in paths]
    done = subprocess.run(["scp", *options(), *paths], capture_output=True, stdin=subprocess.DEVNULL, timeout=120)
    assert done.returncode == expected, done
    return done.stderr.decode()


def instance(text):
    name, path = text.split(":", 1)
    return f"user-alice-{name}-0@127.0.0.1:{path}"


def sftp(name, *commands, expected=0):
    done = subprocess.run(["sftp", *options(), "-b", "-", instance(f"{name}:").rstrip(":")], capture_output=True,
                          input="\n".join(commands).encode(), timeout=120)
    assert done.returncode == expected, done
    return (done.stdout + done.stderr).decode()


def local(name, content):
    path = os.path.join(TMP, name)
    with open(path, "wb") as file:
        file.write(content)
    return path


def content(path):
    with open(path, "rb") as file:
        return file.read()


def refused(command):
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode != 0, done
    return done.stderr.decode()


def scp_copies(name):
    sent = os.urandom(20 << 20)
    copies(local("sent", sent), f"@{name}:big")
    assert content(f"{TMP}/work-{name}/big") == sent
    copies(f"@{name}:/big", f"{TMP}/got")
    assert content(f"{TMP}/got") == sent
    said = copies(f"@{name}:none", f"{TMP}/none", expected=1)
    assert "No such file" in said, said
    said = copies(local("sent", b""), f"@{name}:none/x", expected=1)
    assert "No such file" in said, said


def scp_copies_trees(name):
    tree = f"{TMP}/tree"
    for directory in range(3):
        os.makedirs(f"{tree}/d{directory}/empty")
        for file in range(40):
            local(f"tree/d{directory}/f{file}", os.urandom(file * 1000))
    os.chmod(f"{tree}/d0/f1", 0o755)
    copies("-r", tree, f"@{name}:tree")
    copies("-r", f"@{name}:tree", f"{TMP}/back")
    for there in (f"{TMP}/work-{name}/tree", f"{TMP}/back"):
        subprocess.run(["diff", "-r", tree, there], check=True)
        assert os.stat(f"{there}/d0/f1").st_mode & 0o777 == 0o755
    # The times cannot be kept, and whoever asks for that is told; the file is there.
    said = copies("-p", f"{tree}/d0/f9", f"@{name}:f9")
    assert "unsupported" in said and content(f"{TMP}/work-{name}/f9") == content(f"{tree}/d0/f9"), said
    said = copies("-O", f"{TMP}/sent", f"@{name}:x", expected=1)
    assert "`scp` without -O" in said, said


def sftp_works(name):
    data = os.urandom(300_000)
    path = local("bytes", data)
    said = sftp(name, "pwd", "mkdir dir", f"put {path} dir/a", "ls -l dir", "ls dir", "cd dir", f"get a {TMP}/a",
                f"put {local('nothing', b'')} b", "rm a", "ls")
    assert "Remote working directory: /\n" in said, said
    assert re.search(r"^-rw-r--r-- .* 300000 .* dir/a$", said, re.M) or re.search(r"300000.*a$", said, re.M), said
    assert content(f"{TMP}/a") == data
    assert os.listdir(f"{TMP}/work-{name}/dir") == ["b"]
    said = sftp(name, "rmdir dir", expected=1)
    assert "Failure" in said and os.path.exists(f"{TMP}/work-{name}/dir"), said
    sftp(name, "rm dir/b", "rmdir dir")
    assert not os.path.exists(f"{TMP}/work-{name}/dir")
    # Above the work directory is nothing.
    said = sftp(name, f"get ../../../..{TMP}/machine.key {TMP}/stolen", expected=1)
    assert "not found" in said and not os.path.exists(f"{TMP}/stolen"), said


def sftp_resumes(name):
    data = os.urandom(3 << 20)
    path = local("whole", data)
    sftp(name, f"put {path} whole")
    sftp(name, f"reget whole {local('part', data[:1_000_000])}")
    assert content(f"{TMP}/part") == data
    # The protocol has no way to add to a file, and what is there stays as it is.
    local(f"work-{name}/begun", data[:1_000_000])
    said = sftp(name, f"reput {path} begun", expected=1)
    assert "unsupported" in said, said
    assert content(f"{TMP}/work-{name}/begun") == data[:1_000_000]
    for command in ("rename whole other", "ln -s whole link", "chmod 600 whole"):
        said = sftp(name, command, expected=1)
        assert "unsupported" in said, said


def cut_uploads_leave_nothing(name):
    path = local("large", bytes(64 << 20))
    child = subprocess.Popen(["scp", *options(), "-l", "20000", path, instance(f"{name}:cut")],
                             stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    work = f"{TMP}/work-{name}"
    begun = wait_for(lambda: [file for file in os.listdir(work) if file.startswith(".buildlet-")])
    child.kill()
    child.wait()
    wait_for(lambda: not set(begun) & set(os.listdir(work)))
    assert not os.path.exists(f"{work}/cut")


def file_checks(name):
    return [
        ("files: scp copies 20 MiB each way", scp_copies, name),
        ("files: scp copies trees", scp_copies_trees, name),
        ("files: sftp lists, makes and removes", sftp_works, name),
        ("files: sftp resumes downloads", sftp_resumes, name),
        ("files: a cut upload leaves nothing", cut_uploads_leave_nothing, name),
    ]


def run(backend, types, checks, secrets):
    """Starts a farm, runs the checks that were asked for, ends everything, and the program with it. No secret may be in the
    coordinator's log."""
    failed = 0
    try:
        farm(backend, types)
        for title, check, *arguments in checks:
            if len(sys.argv) > 3 and sys.argv[3] not in title:
                continue
            begun = time.monotonic()
            try:
                check(*arguments)
                verdict, why = "ok", ""
            except Exception as error:  # every check is told of, whatever happens to the others
                verdict, why = "FAIL", f"\n      | {type(error).__name__}: {error}"
                failed += 1
            print(f"{verdict:4}  {(time.monotonic() - begun) * 1000:6.0f} ms  {title}{why}", flush=True)
        with open(f"{TMP}/coordinator.log") as log:
            said = log.read()
        for secret in secrets:
            if secret in said:
                print("FAIL  a password is in the coordinator's log")
                failed += 1
        print(f"{failed} failed")
    finally:
        end()
    sys.exit(bool(failed))


def end():
    for child in children:
        if child.poll() is None:
            child.terminate()
    for child in children:
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
