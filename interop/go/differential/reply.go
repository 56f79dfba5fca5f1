package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// A reply is what a client can see, by the names of the column "field" in the file of differences.
type reply map[string]string

const patience = 30 * time.Second

// exchange sends a request as it is, reads the reply, and asks whether the connection is good for another.
func (p *peer) exchange(raw string) reply {
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		return reply{"status": "no connection"}
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	sent := make(chan struct{})
	go func() {
		io.WriteString(conn, raw)
		close(sent)
	}()
	method, _, _ := strings.Cut(raw, " ")
	reader := bufio.NewReader(conn)
	seen := p.read(reader, method)
	seen["connection"] = "closed"
	select {
	case <-sent:
		// Whoever reads a body no further closes at once or soon; the answer to another request tells.
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if next := p.read(reader, "GET"); next["status"] == "200 OK" {
			seen["connection"] = "kept"
		}
	case <-time.After(5 * time.Second):
	}
	return seen
}

func (p *peer) read(reader *bufio.Reader, method string) reply {
	seen := reply{}
	request := &http.Request{Method: method}
	response, err := http.ReadResponse(reader, request)
	for err == nil && response.StatusCode == http.StatusContinue {
		seen["continue"] = response.Status
		response, err = http.ReadResponse(reader, request)
	}
	if err != nil {
		return reply{"status": "none"}
	}
	body, err := io.ReadAll(response.Body)
	seen["status"] = response.Status
	seen["body"] = p.normal(body)
	if err != nil {
		seen["cut"] = "yes"
	}
	for name, values := range response.Header {
		seen["header "+name] = p.normal([]byte(strings.Join(values, ", ")))
	}
	for name, values := range response.Trailer {
		seen["trailer "+name] = p.normal([]byte(strings.Join(values, ", ")))
	}
	if len(response.TransferEncoding) > 0 {
		seen["header Transfer-Encoding"] = strings.Join(response.TransferEncoding, ", ")
	}
	// Those that differ with the time, the process, or the length of a work directory's name.
	for _, name := range []string{"Date", "Content-Length", "X-Request-Id"} {
		if seen["header "+name] != "" {
			seen["header "+name] = "SOME"
		}
	}
	return seen
}

var times = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)

// normal is a text without what is the machine's or the moment's. Of an archive it is the listing.
func (p *peer) normal(body []byte) string {
	if bytes.HasPrefix(body, []byte{0x1f, 0x8b}) {
		return listing(body)
	}
	text := strings.NewReplacer(p.workdir, "$WORKDIR", p.files, "$FILES", p.addr, "$ADDR").Replace(string(body))
	text = times.ReplaceAllString(text, "TIME")
	if len(text) > 4096 {
		text = fmt.Sprintf("%d bytes, %x", len(text), sha256.Sum256([]byte(text)))
	}
	return text
}

func listing(body []byte) string {
	var lines strings.Builder
	zipped, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return err.Error()
	}
	reader := tar.NewReader(zipped)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return lines.String()
		}
		if err != nil {
			return lines.String() + err.Error()
		}
		content, _ := io.ReadAll(reader)
		fmt.Fprintf(&lines, "%c %o %s %s %q\n", header.Typeflag, header.Mode, strings.TrimPrefix(header.Name, "./"), header.Linkname, content)
	}
}
