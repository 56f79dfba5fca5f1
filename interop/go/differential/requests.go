package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A request is sent to each peer, in the order of the table; later ones see what earlier ones have written.
type request struct {
	name string
	ask  func(*peer) reply
}

// requests has names that tell them apart in the file of differences; `/halt` is last.
var requests = []request{
	{"/", get("/")},
	{"/ by POST", post("/", nil)},
	{"/ by HEAD", send("HEAD", "/", "")},
	{"/ without a password", raw("GET / HTTP/1.1\r\nHost: x\r\n\r\n")},
	{"an unknown path", get("/nothing")},
	{"an unknown path below a known", get("/status/x")},
	{"an unknown path without a password", raw("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")},
	{"/healthz", get("/healthz")},
	{"/healthz without a password", raw("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")},
	{"/debug/x", get("/debug/x?n=3")},

	{"/status", get("/status")},
	{"/status by HEAD", send("HEAD", "/status", "")},
	{"/status by POST", post("/status", nil)},
	{"/status by a made-up method", send("STATUS", "/status", "")},
	{"/status with a query", get("/status?x=1")},
	{"/status with an escape", get("/%73tatus")},
	{"/status with two slashes", get("//status")},
	{"/status with a dot", get("/./status")},
	{"/status of an absolute URL", get("http://somewhere/status")},
	{"/status with another user", raw(head("GET", "/status", "Authorization: Basic "+encoded("anybody:"+password)))},
	{"/status without a password", raw("GET /status HTTP/1.1\r\nHost: x\r\n\r\n")},
	{"/status with a wrong password", raw(head("GET", "/status", "Authorization: Basic "+encoded("gomote:wrong")))},
	{"/status with a token", raw(head("GET", "/status", "Authorization: Bearer "+password))},
	{"/status with a password that is not base64", raw(head("GET", "/status", "Authorization: Basic %%%"))},
	{"/status over HTTP/1.0", raw("GET /status HTTP/1.0\r\n" + credentials + "\r\n")},
	{"/status and goodbye", send("GET", "/status", "", "Connection: close")},
	{"/status with a body", send("GET", "/status", "hello", "Content-Length: 5")},
	{"/status without a host", raw("GET /status HTTP/1.1\r\n" + credentials + "\r\n")},
	{"/status with two hosts", raw("GET /status HTTP/1.1\r\nHost: x\r\nHost: x\r\n" + credentials + "\r\n")},
	{"/status with an empty host", raw("GET /status HTTP/1.1\r\nHost: \r\n" + credentials + "\r\n")},
	{"/workdir", get("/workdir")},
	{"/workdir by POST", post("/workdir", nil)},
	{"/workdir without a password", raw("GET /workdir HTTP/1.1\r\nHost: x\r\n\r\n")},

	{"/write", put("/write?path=d/a.txt&mode=420", "hello\n")},
	{"/write a program", put("/write?path=d/run&mode=493", "#!/bin/sh\necho ran in $(basename $PWD) with $*\n")},
	{"/write of nothing", put("/write?path=d/empty&mode=384", "")},
	{"/write in chunks", send("PUT", "/write?path=d/sub/chunks&mode=420", "3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n", "Transfer-Encoding: chunked")},
	{"/write of what was announced", send("PUT", "/write?path=d/sub/expected&mode=420", "yes", "Content-Length: 3", "Expect: 100-continue")},
	{"/write again", put("/write?path=d/empty&mode=420", "no more")},
	{"/ls of all", get("/ls")},
	{"/write by POST", send("POST", "/write?path=d/x&mode=420", "x", "Content-Length: 1")},
	{"/write by GET", get("/write?path=d/x&mode=420")},
	{"/write without a path", put("/write?mode=420", "x")},
	{"/write to ..", put("/write?path=../x&mode=420", "x")},
	{"/write through ..", put("/write?path=d/../../x&mode=420", "x")},
	{"/write to an absolute path", put("/write?path=/tmp/x&mode=420", "x")},
	{"/write with a backslash", put("/write?path=m%5Cx&mode=420", "x")},
	{"/write without a mode", put("/write?path=m/x", "x")},
	{"/write with a mode of letters", put("/write?path=m/x&mode=rw", "x")},
	{"/write with a negative mode", put("/write?path=m/x&mode=-1", "x")},
	{"/write with a mode beyond 32 bits", put("/write?path=m/x&mode=4294967296", "x")},
	{"/write of a directory's mode", put("/write?path=m/x&mode=2147484132", "x")},
	{"/write over a directory", put("/write?path=d/sub&mode=420", "x")},
	{"/write below a file", put("/write?path=d/a.txt/x&mode=420", "x")},
	{"/write of the work directory", put("/write?path=.&mode=420", "x")},
	{"/write without a password", raw("PUT /write?path=d/x&mode=420 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")},

	{"/ls", get("/ls?dir=d")},
	{"/ls recursive", get("/ls?dir=d&recursive=true")},
	{"/ls recursive with digests", get("/ls?dir=d&recursive=1&digest=t")},
	{"/ls with digests", get("/ls?dir=d&digest=1")},
	{"/ls with a bool that is none", get("/ls?dir=d&recursive=yes")},
	{"/ls with a skip", get("/ls?dir=d&recursive=1&skip=sub")},
	{"/ls with skips", get("/ls?dir=d&recursive=1&skip=none&skip=sub")},
	{"/ls of a file", get("/ls?dir=d/a.txt")},
	{"/ls of nothing", get("/ls?dir=nothing")},
	{"/ls of ..", get("/ls?dir=..")},
	{"/ls through ..", get("/ls?dir=d/../..")},
	{"/ls of a way round", get("/ls?dir=d/sub/..")},
	{"/ls of an absolute path", get("/ls?dir=/")},
	{"/ls with a backslash", get("/ls?dir=d%5Csub")},
	{"/ls by POST", post("/ls?dir=d", nil)},
	{"/ls without a password", raw("GET /ls HTTP/1.1\r\nHost: x\r\n\r\n")},

	{"/tgz", get("/tgz?dir=d")},
	{"/tgz in one member", get("/tgz?dir=d&pargzip=0")},
	{"/tgz of nothing", get("/tgz?dir=nothing")},
	{"/tgz of ..", get("/tgz?dir=..")},
	{"/tgz of an absolute path", get("/tgz?dir=/")},
	{"/tgz by POST", post("/tgz?dir=d", nil)},
	{"/tgz without a password", raw("GET /tgz?dir=d HTTP/1.1\r\nHost: x\r\n\r\n")},

	{"/writetgz", put("/writetgz?dir=t", archive(file("a/word", "word"), entry("b/", tar.TypeDir, 0o700)))},
	{"/ls after /writetgz", get("/ls?dir=t&recursive=1&digest=1")},
	{"/writetgz of two members", put("/writetgz?dir=two", halves(archive(file("one", "1"))))},
	{"/ls after two members", get("/ls?dir=two&recursive=1&digest=1")},
	{"/writetgz with a pax header", put("/writetgz?dir=pax", archive(&tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "abc"}}, file("f", "f")))},
	{"/writetgz with a link", put("/writetgz?dir=link", archive(file("f", "f"), &tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "f"}))},
	{"/writetgz with a device", put("/writetgz?dir=bad", archive(entry("null", tar.TypeChar, 0o600)))},
	{"/writetgz with ..", put("/writetgz?dir=bad", archive(file("../x", "x")))},
	{"/writetgz with an absolute name", put("/writetgz?dir=bad", archive(file("/x", "x")))},
	{"/writetgz of text", put("/writetgz?dir=bad", "no archive at all")},
	{"/writetgz of nothing", put("/writetgz?dir=bad", "")},
	{"/writetgz of no tar", put("/writetgz?dir=bad", zipped(strings.Repeat("no archive ", 100)))},
	{"/writetgz of a half", put("/writetgz?dir=bad", archive(file("f", strings.Repeat("f", 4096)))[:40])},
	{"/writetgz to ..", put("/writetgz?dir=../x", archive(file("f", "f")))},
	{"/writetgz to an absolute path", put("/writetgz?dir=/tmp/x", archive(file("f", "f")))},
	{"/writetgz by GET", get("/writetgz?dir=t")},
	{"/writetgz without a password", raw("PUT /writetgz?dir=t HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")},
	{"/writetgz by URL", fetch("url", "/good")},
	{"/ls after /writetgz by URL", get("/ls?dir=url&recursive=1&digest=1")},
	{"/writetgz by URL that moved", fetch("moved", "/moved")},
	{"/writetgz by URL that goes round", fetch("bad", "/round")},
	{"/writetgz by URL of text", fetch("bad", "/text")},
	{"/writetgz by URL of nothing", fetch("bad", "/nothing")},
	{"/writetgz by URL of nobody", post("/writetgz?dir=bad", url.Values{"url": {"http://127.0.0.1:1/"}})},
	{"/writetgz by URL of another scheme", post("/writetgz?dir=bad", url.Values{"url": {"ftp://127.0.0.1/"}})},
	{"/writetgz by an empty URL", post("/writetgz?dir=bad", url.Values{"url": {""}})},
	{"/writetgz of go1.4", put("/writetgz?dir=go1.4", archive(file("VERSION", "go1.4")))},
	{"/writetgz of go1.4 again by URL", fetch("go1.4", "/nothing")},

	{"/exec", shell("echo hello")},
	{"/exec of both outputs", shell("echo one; echo two >&2; printf three")},
	{"/exec of much output", shell("head -c 1000000 /dev/zero")},
	{"/exec of silence", shell("true")},
	{"/exec of a failure", shell("exit 3")},
	{"/exec of a signal", shell("kill -9 $$")},
	{"/exec of a signal that may dump", shell("ulimit -c 0; kill -ABRT $$")},
	{"/exec of standard input", shell("cat; echo end")},
	{"/exec of one that leaves another", shell("(sleep 1; echo late) & echo early")},
	{"/exec by GET", get("/exec?cmd=true&mode=sys")},
	{"/exec without a command", post("/exec", url.Values{"mode": {"sys"}})},
	{"/exec of an empty form", post("/exec", nil)},
	{"/exec of an unknown mode", command("sh", "mode", "other", "cmdArg", "-c", "cmdArg", "echo x")},
	{"/exec of nothing, sys", command("nonesuch", "mode", "sys")},
	{"/exec of nothing", command("nonesuch")},
	{"/exec of nothing in a directory", command("d/nonesuch")},
	{"/exec of what is no program", command("d/a.txt")},
	{"/exec of a directory", command("d/sub")},
	{"/exec of a file", command("d/run", "cmdArg", "one", "cmdArg", "two words")},
	{"/exec of a file, dir", command("d/run", "dir", "d/sub")},
	{"/exec of a file, sys", command("d/run", "mode", "sys")},
	{"/exec of a bare name", command("sh", "cmdArg", "-c", "cmdArg", "echo x")},
	{"/exec of an absolute path", command("/bin/echo", "cmdArg", "x")},
	{"/exec of an absolute path, sys", command("/bin/echo", "mode", "sys", "cmdArg", "x")},
	{"/exec of ..", command("../x")},
	{"/exec through ..", command("d/../../x")},
	{"/exec with a backslash", command(`d\run`)},
	{"/exec in a directory, sys", shell("basename $PWD", "dir", "d/sub")},
	{"/exec in an absolute directory, sys", shell("pwd", "dir", "/")},
	{"/exec in an absolute directory", command("d/run", "dir", "/")},
	{"/exec in ..", command("d/run", "dir", "..")},
	{"/exec in no directory", command("d/run", "dir", "nowhere")},
	{"/exec in no directory, sys", shell("true", "dir", "nowhere")},
	{"/exec in the work directory, sys", shell("pwd; echo $PWD")},
	{"/exec with env", shell("echo $A $B", "env", "A=1", "env", "B=2")},
	{"/exec with env twice", shell("echo $A", "env", "A=1", "env", "A=2")},
	{"/exec with env that is none", shell("echo $A", "env", "A")},
	{"/exec with the environment outside", shell("echo $OUTSIDE $WORKDIR")},
	{"/exec with env over that outside", shell("echo $OUTSIDE", "env", "OUTSIDE=2")},
	{"/exec with its directories", shell("echo $GOROOT_BOOTSTRAP $TMPDIR $GOCACHE")},
	{"/exec with path", shell("echo $PATH", "path", "/a", "path", "/b")},
	{"/exec with path, old", shell("test $PATH = /a:$OLD:/b; echo $?", "path", "/a", "path", "$PATH", "path", "/b", "env", "OLD="+os.Getenv("PATH"))},
	{"/exec with path, work directory", shell("echo $PATH", "path", "$WORKDIR/d")},
	{"/exec with path, empty", sorted(command("/usr/bin/env", "mode", "sys", "path", "$EMPTY", "env", "HOME="))},
	{"/exec with all of its environment", sorted(command("/usr/bin/env", "mode", "sys"))},
	{"/exec with PATH in env", shell("echo $PATH", "env", "PATH=/a")},
	{"/exec with debug", command("d/run", "debug", "true", "path", "/a")},
	{"/exec with a command in the query", send("POST", "/exec?cmd=true&mode=sys", "", form, "Content-Length: 0")},
	{"/exec with arguments in the query", post("/exec?cmdArg=x", url.Values{"cmd": {"echo"}, "mode": {"sys"}})},
	{"/exec with a bad escape", formOf("/exec", "cmd=true&mode=sys&cmdArg=%zz")},
	{"/exec with a semicolon", formOf("/exec", "cmd=true&mode=sys;cmdArg=x")},
	{"/exec of no form", send("POST", "/exec", "cmd=true&mode=sys", "Content-Length: 17")},
	{"/exec over HTTP/1.0", raw("POST /exec HTTP/1.0\r\n" + credentials + form + "\r\nContent-Length: 17\r\n\r\ncmd=true&mode=sys")},
	{"/exec without a password", raw("POST /exec HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")},
	{"/exec, given up", givenUp},

	{"/removeall", post("/removeall", url.Values{"path": {"t/a"}})},
	{"/ls after /removeall", get("/ls?dir=t")},
	{"/removeall of two", post("/removeall", url.Values{"path": {"t", "two"}})},
	{"/removeall of nothing", post("/removeall", url.Values{"path": {"nothing"}})},
	{"/removeall with a path in the query", post("/removeall?path=pax", nil)},
	{"/removeall without a path", post("/removeall", nil)},
	{"/removeall of an empty path", post("/removeall", url.Values{"path": {""}})},
	{"/removeall of ../x", post("/removeall", url.Values{"path": {"../x"}})},
	{"/removeall of one and ../x", post("/removeall", url.Values{"path": {"d/empty", "../x"}})},
	{"/ls after half a /removeall", get("/ls?dir=d")},
	{"/removeall of an absolute path", post("/removeall", url.Values{"path": {"/tmp/x"}})},
	{"/removeall by GET", get("/removeall?path=d")},
	{"/removeall without a password", raw("POST /removeall?path=d HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")},
	{"/removeall of all", post("/removeall", url.Values{"path": {"."}})},
	{"/ls after /removeall of all", get("/ls?recursive=1")},

	{"/connect-ssh by GET", get("/connect-ssh")},
	{"/connect-ssh without headers", post("/connect-ssh", nil)},
	{"/connect-ssh with a body", send("POST", "/connect-ssh", "x", "Content-Length: 1")},
	{"/connect-ssh without a key", send("POST", "/connect-ssh", "", "Content-Length: 0", "X-Go-Ssh-User: root")},
	{"/connect-ssh without a password", raw("POST /connect-ssh HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")},

	{"what is no request", raw("hello\r\n\r\n")},
	{"a version that is none", raw("GET / HTTP/3.7\r\nHost: x\r\n\r\n")},
	{"a header that is none", raw("GET / HTTP/1.1\r\nHost: x\r\nhello\r\n\r\n")},
	{"two lengths", raw(head("PUT", "/write?path=x&mode=420", "Content-Length: 1", "Content-Length: 2") + "xx")},
	{"a length and chunks", raw(head("PUT", "/write?path=x&mode=420", strings.TrimSpace(credentials), "Content-Length: 6", "Transfer-Encoding: chunked") + "1\r\nx\r\n0\r\n\r\n")},
	{"a negative length", raw(head("PUT", "/write?path=x&mode=420", "Content-Length: -1"))},
	{"an unknown coding", raw(head("PUT", "/write?path=x&mode=420", "Transfer-Encoding: rot13") + "x")},

	{"/halt by GET", get("/halt")},
	{"/halt without a password", raw("POST /halt HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")},
	{"/halt", halt},
}

const form = "Content-Type: application/x-www-form-urlencoded"

var credentials = "Authorization: Basic " + encoded("gomote:"+password) + "\r\n"

func encoded(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func head(method, target string, headers ...string) string {
	return method + " " + target + " HTTP/1.1\r\nHost: buildlet\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n"
}

func raw(text string) func(*peer) reply {
	return func(p *peer) reply { return p.exchange(text) }
}

// send sends the headers as they are, behind the password.
func send(method, target, body string, headers ...string) func(*peer) reply {
	return raw(head(method, target, append([]string{strings.TrimSpace(credentials)}, headers...)...) + body)
}

func get(target string) func(*peer) reply { return send("GET", target, "") }

func put(target, body string) func(*peer) reply {
	return send("PUT", target, body, "Content-Length: "+strconv.Itoa(len(body)))
}

func formOf(target, body string) func(*peer) reply {
	return send("POST", target, body, form, "Content-Length: "+strconv.Itoa(len(body)))
}

func post(target string, values url.Values) func(*peer) reply { return formOf(target, values.Encode()) }

// command is a form for /exec: the command, then names and values in turn.
func command(name string, pairs ...string) func(*peer) reply {
	values := url.Values{"cmd": {name}}
	for n := 0; n < len(pairs); n += 2 {
		values.Add(pairs[n], pairs[n+1])
	}
	return post("/exec", values)
}

func shell(script string, pairs ...string) func(*peer) reply {
	return command("/bin/sh", append([]string{"mode", "sys", "cmdArg", "-c", "cmdArg", script}, pairs...)...)
}

// sorted is for output whose order means nothing.
func sorted(ask func(*peer) reply) func(*peer) reply {
	return func(p *peer) reply {
		seen := ask(p)
		lines := strings.SplitAfter(seen["body"], "\n")
		slices.Sort(lines)
		seen["body"] = strings.Join(lines, "")
		return seen
	}
}

func fetch(dir, path string) func(*peer) reply {
	return func(p *peer) reply { return post("/writetgz?dir="+dir, url.Values{"url": {p.files + path}})(p) }
}

// givenUp hangs up on a command that has started another, and sees which of them are killed.
func givenUp(p *peer) reply {
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		return reply{"status": "no connection"}
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	body := url.Values{"cmd": {"/bin/sh"}, "mode": {"sys"}, "cmdArg": {"-c", "sleep 600 & echo $$ $!; wait"}}.Encode()
	io.WriteString(conn, head("POST", "/exec", strings.TrimSpace(credentials), form, "Content-Length: "+strconv.Itoa(len(body)))+body)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return reply{"status": "none"}
	}
	var itself, other int
	if _, err := fmt.Fscan(response.Body, &itself, &other); err != nil {
		return reply{"status": err.Error()}
	}
	conn.Close()
	seen := reply{"status": response.Status, "command": fate(itself), "its child": fate(other)}
	syscall.Kill(other, syscall.SIGKILL)
	return seen
}

func fate(process int) string {
	for range 30 {
		if syscall.Kill(process, 0) != nil {
			return "killed"
		}
		time.Sleep(100 * time.Millisecond)
	}
	return "lives"
}

func halt(p *peer) reply {
	seen := post("/halt", nil)(p)
	ended := make(chan struct{})
	go func() {
		p.command.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		seen["process"] = p.command.ProcessState.String()
	case <-time.After(10 * time.Second):
		seen["process"] = "lives"
	}
	return seen
}

func entry(name string, kind byte, mode int64) *tar.Header {
	return &tar.Header{Name: name, Typeflag: kind, Mode: mode}
}

// file is an entry whose content is kept in a field that the archive then leaves out.
func file(name, content string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o640, Size: int64(len(content)), Uname: content}
}

func archive(entries ...*tar.Header) string {
	var packed bytes.Buffer
	writer := tar.NewWriter(&packed)
	for _, entry := range entries {
		header := *entry
		header.Uname = ""
		if err := writer.WriteHeader(&header); err != nil {
			panic(err)
		}
		io.WriteString(writer, entry.Uname)
	}
	writer.Close()
	return zipped(packed.String())
}

// halves is an archive in two gzip members.
func halves(text string) string {
	reader, err := gzip.NewReader(strings.NewReader(text))
	if err != nil {
		panic(err)
	}
	packed, err := io.ReadAll(reader)
	if err != nil {
		panic(err)
	}
	return zipped(string(packed[:700])) + zipped(string(packed[700:]))
}

func zipped(text string) string {
	var out bytes.Buffer
	writer := gzip.NewWriter(&out)
	io.WriteString(writer, text)
	writer.Close()
	return out.String()
}
