// Capture records how Go's buildlet of 2019 registers with Go's first revdial, and is asked for its status.
//
//	capture DIRECTORY BUILDLET
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"

	"golang.org/x/build/revdial"
	"interop/golden"
)

func main() {
	scratch, err := os.MkdirTemp("", "capture")
	golden.Check(err)
	defer os.RemoveAll(scratch)
	listener := golden.Listen()
	machine := exec.Command(os.Args[2], "-reverse-type=host-linux-amd64-localdev", "-coordinator="+listener.Addr().String(),
		"-hostname=here", "-halt=false", "-workdir="+scratch)
	machine.Env = []string{"HOME=" + scratch, "PATH=" + os.Getenv("PATH")}
	golden.Check(machine.Start())
	defer machine.Process.Kill()

	conn, err := listener.Accept()
	golden.Check(err)
	var record golden.Record
	conn = record.Tap(conn, "coordinator", "machine")
	buffered := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	_, err = http.ReadRequest(buffered.Reader)
	golden.Check(err)
	golden.Check((&http.Response{StatusCode: http.StatusSwitchingProtocols, Proto: "HTTP/1.1"}).Write(conn))
	dialer := revdial.NewDialer(buffered, conn)
	for range 2 {
		ask(dialer.Dial())
	}
	record.Save("v1", "cmd/buildlet of March 2019 and the Dialer of Go's first revdial")
}

// ask says its request in one write, as net/http does.
func ask(conn net.Conn, err error) {
	golden.Check(err)
	fmt.Fprintf(conn, "GET /status HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
	_, err = io.Copy(io.Discard, conn)
	golden.Check(err)
	golden.Check(conn.Close())
}
