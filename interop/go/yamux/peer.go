package yamux

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/yamux"
)

// link is a session of hashicorp/yamux whose other end is ours, in a process of its own that joins each stream with a TCP
// socket on loopback.
type link struct {
	*yamux.Session
	// target accepts what our Listener has accepted.
	target net.Listener
	// local is where our Dialer dials for whoever connects.
	local string
	peer  *process
}

// process is ours, which closes the link when it is told to, and the transport to it.
type process struct {
	*exec.Cmd
	input io.Writer
	tail  *tail
}

// tail is a transport that remembers the last frame's header, of those that came.
type tail struct {
	net.Conn
	mu   sync.Mutex
	last []byte
}

func (t *tail) Read(into []byte) (int, error) {
	n, err := t.Conn.Read(into)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, into[:n]...)
	t.last = t.last[max(0, len(t.last)-12):]
	return n, err
}

func (t *tail) header() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

// journal is what a session logs; it may be read while the session's goroutines write.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(line)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func quiet() *yamux.Config {
	config := yamux.DefaultConfig()
	config.LogOutput = io.Discard
	return config
}

// listener starts our Listener; Go opens the streams.
func listener(t testing.TB, config *yamux.Config, more ...string) *link {
	target := listen(t)
	conn, peer, _ := start(t, "listener", append([]string{target.Addr().String()}, more...)...)
	session, err := yamux.Client(conn, config)
	check(t, err)
	return finish(t, &link{Session: session, target: target, peer: peer})
}

// dialer starts our Dialer; Go accepts the streams.
func dialer(t testing.TB, config *yamux.Config) *link {
	conn, peer, output := start(t, "dialer")
	line, err := output.ReadString('\n')
	check(t, err)
	session, err := yamux.Server(conn, config)
	check(t, err)
	return finish(t, &link{Session: session, local: strings.TrimSpace(line), peer: peer})
}

func finish(t testing.TB, l *link) *link {
	t.Cleanup(func() { l.Close() })
	return l
}

func start(t testing.TB, role string, more ...string) (net.Conn, *process, *bufio.Reader) {
	transport := listen(t)
	program := os.Getenv("INTEROP_PEER")
	if program == "" {
		t.Fatal("INTEROP_PEER is not set; ../run sets it")
	}
	peer := exec.Command(program, append([]string{"v3", role, transport.Addr().String()}, more...)...)
	output, err := peer.StdoutPipe()
	check(t, err)
	input, err := peer.StdinPipe()
	check(t, err)
	check(t, peer.Start())
	t.Cleanup(func() {
		peer.Process.Kill()
		peer.Wait()
	})
	conn, err := transport.Accept()
	check(t, err)
	watched := &tail{Conn: conn}
	return watched, &process{Cmd: peer, input: input, tail: watched}, bufio.NewReader(output)
}

// pair opens a stream whichever way the link goes; the first end is Go's, the second the socket behind ours.
func (l *link) pair(t testing.TB) (*yamux.Stream, *net.TCPConn) {
	if l.target != nil {
		stream, err := l.OpenStream()
		check(t, err)
		socket, err := l.target.Accept()
		check(t, err)
		return stream, socket.(*net.TCPConn)
	}
	socket, err := net.Dial("tcp", l.local)
	check(t, err)
	stream, err := l.AcceptStream()
	check(t, err)
	return stream, socket.(*net.TCPConn)
}

func listen(t testing.TB) net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	t.Cleanup(func() { ln.Close() })
	return ln
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// within fails a test that hangs, with its name.
func within(t testing.TB, limit time.Duration, what string, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	case <-time.After(limit):
		t.Fatal(fmt.Sprintf("%s: nothing within %v", what, limit))
	}
}
