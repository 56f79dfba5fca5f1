package yamux

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/yamux"
	"golang.org/x/net/nettest"
)

// both runs a test with Go opening the streams, and with ours.
func both(t *testing.T, test func(t *testing.T, l *link)) {
	bothWith(t, quiet(), test)
}

func bothWith(t *testing.T, config *yamux.Config, test func(t *testing.T, l *link)) {
	t.Run("GoDials", func(t *testing.T) { test(t, listener(t, config)) })
	t.Run("GoListens", func(t *testing.T) { test(t, dialer(t, config)) })
}

// TestStreams sends what 64 streams at once carry both ways, and compares hashes.
func TestStreams(t *testing.T) {
	both(t, func(t *testing.T, l *link) {
		var streams sync.WaitGroup
		for n := range 64 {
			stream, socket := l.pair(t)
			streams.Go(func() {
				// Pairs are made one after the other, so both ends are of one connection.
				var ways sync.WaitGroup
				ways.Go(func() { transfer(t, stream, socket, int64(n), stream.Close) })
				ways.Go(func() { transfer(t, socket, stream, int64(n+100), socket.CloseWrite) })
				ways.Wait()
			})
		}
		within(t, time.Minute, "64 streams", func() error { streams.Wait(); return nil })
	})
}

func transfer(t *testing.T, from io.Writer, to io.Reader, seed int64, end func() error) {
	data := make([]byte, 300_000+seed*1000)
	rand.New(rand.NewSource(seed)).Read(data)
	go func() {
		if _, err := from.Write(data); err != nil {
			t.Error(err)
		}
		if err := end(); err != nil {
			t.Error(err)
		}
	}()
	hash := sha256.New()
	length, err := io.Copy(hash, to)
	if err != nil {
		t.Errorf("after %d of %d: %v", length, len(data), err)
	} else if want := sha256.Sum256(data); !bytes.Equal(hash.Sum(nil), want[:]) {
		t.Errorf("%d bytes of %d, or others", length, len(data))
	}
}

// TestHalfCloseByGo sends megabytes, far beyond a window, to a side that has closed its own half.
func TestHalfCloseByGo(t *testing.T) {
	both(t, func(t *testing.T, l *link) {
		stream, socket := l.pair(t)
		check(t, stream.Close())
		within(t, 10*time.Second, "the end", func() error { return ended(socket) })
		transfer(t, socket, stream, 4000, socket.CloseWrite)
	})
}

func TestHalfCloseByOurs(t *testing.T) {
	both(t, func(t *testing.T, l *link) {
		stream, socket := l.pair(t)
		check(t, socket.CloseWrite())
		within(t, 10*time.Second, "the end", func() error { return ended(stream) })
		transfer(t, stream, socket, 4000, stream.Close)
	})
}

// TestSecondClose closes twice what Go would answer a second FIN for by ending the session.
func TestSecondClose(t *testing.T) {
	both(t, func(t *testing.T, l *link) {
		kept, behind := l.pair(t)
		for range 20 {
			stream, socket := l.pair(t)
			check(t, socket.CloseWrite())
			check(t, stream.Close())
			check(t, stream.Close())
			check(t, ended(stream))
			check(t, ended(socket))
			socket.Close()
		}
		echo(t, kept, behind)
	})
}

// TestCloseDuringWrites closes streams that other goroutines write to: hashicorp/yamux then sends data behind its FIN, at which
// the other streams must go on.
func TestCloseDuringWrites(t *testing.T) {
	both(t, func(t *testing.T, l *link) {
		kept, behind := l.pair(t)
		for range 300 {
			stream, socket := l.pair(t)
			go io.Copy(io.Discard, socket)
			for range 4 {
				go func() {
					for {
						if _, err := stream.Write(make([]byte, 100)); err != nil {
							return
						}
					}
				}()
			}
			time.Sleep(time.Millisecond)
			check(t, stream.Close())
			socket.Close()
		}
		echo(t, kept, behind)
	})
}

// TestReset has either side give a stream up in the middle; the other streams go on.
func TestReset(t *testing.T) {
	both(t, func(t *testing.T, l *link) {
		kept, behind := l.pair(t)
		stream, socket := l.pair(t)
		echo(t, stream, socket)
		check(t, socket.SetLinger(0))
		socket.Close()
		within(t, 10*time.Second, "a reset", func() error {
			if _, err := io.Copy(io.Discard, stream); err == nil {
				return errors.New("a reset came as an end")
			}
			return nil
		})
		echo(t, kept, behind)
	})
}

// TestSilentAcceptor leaves streams unaccepted for longer than Go waits before it ends the session.
func TestSilentAcceptor(t *testing.T) {
	config := quiet()
	config.StreamOpenTimeout = time.Second
	l := listener(t, config, "3")
	stream, socket := l.pair(t)
	if l.IsClosed() {
		t.Fatal("Go has ended the session")
	}
	echo(t, stream, socket)
}

// TestSilentConversation has the accepting side say nothing for longer than Go waits.
func TestSilentConversation(t *testing.T) {
	config := quiet()
	config.StreamOpenTimeout = time.Second
	bothWith(t, config, func(t *testing.T, l *link) {
		stream, socket := l.pair(t)
		time.Sleep(2500 * time.Millisecond)
		echo(t, stream, socket)
	})
}

// TestKeepAlives has Go ask fifty times whether we are there.
func TestKeepAlives(t *testing.T) {
	config := quiet()
	config.KeepAliveInterval = 20 * time.Millisecond
	config.ConnectionWriteTimeout = 5 * time.Second
	bothWith(t, config, func(t *testing.T, l *link) {
		stream, socket := l.pair(t)
		time.Sleep(time.Second)
		echo(t, stream, socket)
		_, err := l.Ping()
		check(t, err)
	})
}

// TestWindows sends through windows of Go's that differ, to a reader who begins late.
func TestWindows(t *testing.T) {
	for _, window := range []uint32{256 << 10, 1 << 20, 16 << 20} {
		t.Run(fmt.Sprint(window), func(t *testing.T) {
			config := quiet()
			config.MaxStreamWindowSize = window
			bothWith(t, config, func(t *testing.T, l *link) {
				stream, socket := l.pair(t)
				blocked, behind := l.pair(t)
				// Nobody reads this one; it holds nobody up.
				go blocked.Write(make([]byte, 64<<20))
				go behind.Write(make([]byte, 64<<20))
				transfer(t, stream, socket, 20_000, stream.Close)
				transfer(t, socket, stream, 20_000, socket.CloseWrite)
			})
		})
	}
}

// TestGoAway has Go say that it takes no more streams: those that are open live on, and a dial of ours fails.
func TestGoAway(t *testing.T) {
	l := dialer(t, quiet())
	stream, socket := l.pair(t)
	check(t, l.GoAway())
	_, err := l.Ping()
	check(t, err)
	echo(t, stream, socket)
	refused, err := net.Dial("tcp", l.local)
	check(t, err)
	within(t, 10*time.Second, "a refusal", func() error {
		_, err := io.Copy(io.Discard, refused)
		_ = err
		return nil
	})
	echo(t, stream, socket)
}

// TestGoodbye has ours close the link: its last frame says so, and Go has nothing to complain about.
func TestGoodbye(t *testing.T) {
	var log journal
	config := quiet()
	config.LogOutput = &log
	bothWith(t, config, func(t *testing.T, l *link) {
		stream, socket := l.pair(t)
		echo(t, stream, socket)
		fmt.Fprintln(l.peer.input, "close")
		within(t, 10*time.Second, "the end of the session", func() error {
			<-l.CloseChan()
			_, err := l.OpenStream()
			if !errors.Is(err, yamux.ErrRemoteGoAway) && !errors.Is(err, yamux.ErrSessionShutdown) {
				return fmt.Errorf("a stream was opened: %v", err)
			}
			return nil
		})
		if goAway := []byte{0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}; !bytes.Equal(l.peer.tail.header(), goAway) {
			t.Errorf("the last frame is % x", l.peer.tail.header())
		}
		if log := log.String(); log != "" {
			t.Errorf("Go complains: %s", log)
		}
	})
}

// TestTheEnd kills our process, and expects every stream to fail.
func TestTheEnd(t *testing.T) {
	both(t, func(t *testing.T, l *link) {
		stream, _ := l.pair(t)
		check(t, l.peer.Process.Kill())
		within(t, 10*time.Second, "the end of the session", func() error {
			<-l.CloseChan()
			_, err := stream.Write([]byte("x"))
			if err == nil {
				return errors.New("a write after the end succeeds")
			}
			return nil
		})
	})
}

// TestNetConn is Go's own conformance suite: one end is a stream of hashicorp/yamux, the other a socket behind ours.
func TestNetConn(t *testing.T) {
	// Side by side: where hashicorp's half makes a test hang, nettest gives it up after a minute.
	both(t, func(t *testing.T, l *link) {
		t.Parallel()
		nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
			stream, socket := l.pair(t)
			return stream, socket, func() { stream.Close(); socket.Close() }, nil
		})
	})
}

// TestNetConnReference is the same with hashicorp/yamux at both ends, to tell whose a failure is.
func TestNetConnReference(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		a, b := net.Pipe()
		client, err := yamux.Client(a, quiet())
		check(t, err)
		server, err := yamux.Server(b, quiet())
		check(t, err)
		one, err := client.Open()
		check(t, err)
		other, err := server.Accept()
		check(t, err)
		return one, other, func() { client.Close(); server.Close() }, nil
	})
}

func ended(r io.Reader) error {
	n, err := r.Read(make([]byte, 1))
	if n != 0 || err != io.EOF {
		return fmt.Errorf("%d bytes and %v instead of an end", n, err)
	}
	return nil
}

func echo(t *testing.T, one, other net.Conn) {
	t.Helper()
	for _, way := range [][2]net.Conn{{one, other}, {other, one}} {
		within(t, 10*time.Second, "an echo", func() error {
			if _, err := way[0].Write([]byte("word")); err != nil {
				return err
			}
			word := make([]byte, 4)
			_, err := io.ReadFull(way[1], word)
			if err == nil && string(word) != "word" {
				err = fmt.Errorf("%q", word)
			}
			return err
		})
	}
}
