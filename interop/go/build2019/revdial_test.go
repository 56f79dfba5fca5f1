// Go's first revdial, of 2019, against ours, in both roles.
package build2019

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/build/revdial"
)

// pairs starts our side, and gives what makes a connection: Go's end, and a socket behind ours.
func pairs(t *testing.T, role string) func() (net.Conn, *net.TCPConn) {
	transport, target := listen(t), listen(t)
	args := []string{"v1", role, transport.Addr().String()}
	if role == "listener" {
		args = append(args, target.Addr().String())
	}
	peer := exec.Command(os.Getenv("INTEROP_PEER"), args...)
	output, err := peer.StdoutPipe()
	check(t, err)
	check(t, peer.Start())
	t.Cleanup(func() { peer.Process.Kill(); peer.Wait() })
	conn, err := transport.Accept()
	check(t, err)
	t.Cleanup(func() { conn.Close() })
	buffered := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	if role == "listener" {
		dialer := revdial.NewDialer(buffered, conn)
		return func() (net.Conn, *net.TCPConn) {
			stream, err := dialer.Dial()
			check(t, err)
			socket, err := target.Accept()
			check(t, err)
			return stream, socket.(*net.TCPConn)
		}
	}
	local, err := bufio.NewReader(output).ReadString('\n')
	check(t, err)
	ln := revdial.NewListener(buffered)
	return func() (net.Conn, *net.TCPConn) {
		socket, err := net.Dial("tcp", strings.TrimSpace(local))
		check(t, err)
		stream, err := ln.Accept()
		check(t, err)
		return stream, socket.(*net.TCPConn)
	}
}

func both(t *testing.T, test func(t *testing.T, pair func() (net.Conn, *net.TCPConn))) {
	t.Run("GoDials", func(t *testing.T) { test(t, pairs(t, "listener")) })
	t.Run("GoListens", func(t *testing.T) { test(t, pairs(t, "dialer")) })
}

// TestStreams sends what 64 connections at once carry both ways, and compares hashes.
func TestStreams(t *testing.T) {
	both(t, func(t *testing.T, pair func() (net.Conn, *net.TCPConn)) {
		var streams sync.WaitGroup
		for n := range 64 {
			stream, socket := pair()
			streams.Go(func() {
				var ways sync.WaitGroup
				ways.Go(func() { transfer(t, stream, socket, int64(n)) })
				ways.Go(func() { transfer(t, socket, stream, int64(n+100)) })
				ways.Wait()
				if err := stream.Close(); err != nil {
					t.Error(err)
				}
				if _, err := socket.Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("%v instead of an end", err)
				}
				socket.Close()
			})
		}
		streams.Wait()
	})
}

// TestOurEnd has our side say all it has to and close; Go reads it to its end.
func TestOurEnd(t *testing.T) {
	both(t, func(t *testing.T, pair func() (net.Conn, *net.TCPConn)) {
		for range 20 {
			stream, socket := pair()
			go func() {
				socket.Write(make([]byte, 1<<20))
				socket.CloseWrite()
			}()
			length, err := io.Copy(io.Discard, stream)
			if length != 1<<20 || err != nil {
				t.Fatal(length, err)
			}
			check(t, stream.Close())
			socket.Close()
		}
	})
}

// transfer tells where it ends by its length: the first dialect has no half close.
func transfer(t *testing.T, from io.Writer, to io.Reader, seed int64) {
	data := make([]byte, 300_000+seed*1000)
	rand.New(rand.NewSource(seed)).Read(data)
	go func() {
		if _, err := from.Write(data); err != nil {
			t.Error(err)
		}
	}()
	got := make([]byte, len(data))
	if n, err := io.ReadFull(to, got); err != nil {
		t.Error(fmt.Errorf("after %d of %d: %w", n, len(data), err))
		return
	}
	if a, b := sha256.Sum256(data), sha256.Sum256(got); !bytes.Equal(a[:], b[:]) {
		t.Errorf("%d other bytes", len(data))
	}
}

func listen(t *testing.T) net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	t.Cleanup(func() { ln.Close() })
	return ln
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
