// Package golden keeps what the two ends of a connection said to each other, as the tests of the crates include it: a Rust slice with a
// pair for each turn, who speaks and what.
package golden

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// A Record is of one connection.
type Record struct {
	mu    sync.Mutex
	turns []turn
}

type turn struct {
	speaker string
	text    []byte
}

func (r *Record) add(speaker string, text []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := len(r.turns) - 1
	if last >= 0 && r.turns[last].speaker == speaker {
		r.turns[last].text = append(r.turns[last].text, text...)
	} else if len(text) > 0 {
		r.turns = append(r.turns, turn{speaker, append([]byte{}, text...)})
	}
}

// Save writes the file NAME.rs in the directory that the first argument of the program names, with a line about where it is from.
func (r *Record) Save(name, about string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var text strings.Builder
	fmt.Fprintf(&text, "// %s.\n&[\n", about)
	for _, turn := range r.turns {
		fmt.Fprintf(&text, "    (\"%s\", b\"%s\"),\n", turn.speaker, escape(turn.text))
	}
	text.WriteString("]\n")
	Check(os.WriteFile(filepath.Join(os.Args[1], name+".rs"), []byte(text.String()), 0o644))
}

// Tap is a connection that is recorded; what is written to it the speaker says, what is read from it the other.
func (r *Record) Tap(conn net.Conn, speaker, other string) net.Conn {
	return &tap{conn, r, speaker, other}
}

type tap struct {
	net.Conn
	record         *Record
	speaker, other string
}

func (t *tap) Write(text []byte) (int, error) {
	t.record.add(t.speaker, text)
	return t.Conn.Write(text)
}

func (t *tap) Read(into []byte) (int, error) {
	n, err := t.Conn.Read(into)
	t.record.add(t.other, into[:n])
	return n, err
}

func escape(text []byte) string {
	var out strings.Builder
	for _, c := range text {
		switch {
		case c == '\n':
			out.WriteString(`\n`)
		case c == '\r':
			out.WriteString(`\r`)
		case c == '\\' || c == '"':
			out.WriteByte('\\')
			out.WriteByte(c)
		case c >= ' ' && c <= '~':
			out.WriteByte(c)
		default:
			fmt.Fprintf(&out, `\x%02x`, c)
		}
	}
	return out.String()
}

// Listen is a port with TLS, for programs that do not look at certificates.
func Listen() net.Listener {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	Check(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	Check(err)
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}}}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	Check(err)
	return listener
}

// Check ends the program where something failed.
func Check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
