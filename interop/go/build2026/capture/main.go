// Capture records how Go's current buildlet registers with Go's revdial/v2, picks up a connection, and is asked for its status.
//
//	capture DIRECTORY BUILDLET
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"

	revdial "golang.org/x/build/revdial/v2"
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
	var control, pickedUp golden.Record
	conn = control.Tap(conn, "coordinator", "machine")
	_, err = http.ReadRequest(bufio.NewReader(conn))
	golden.Check(err)
	golden.Check(switchProtocols.Write(conn))
	dialer := revdial.NewDialer(conn, "/revdial")

	arrived := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			arrived <- err
			return
		}
		conn = pickedUp.Tap(conn, "coordinator", "machine")
		request, err := http.ReadRequest(bufio.NewReader(conn))
		if err == nil && request.Method != "GET" {
			err = fmt.Errorf("%s", request.Method)
		}
		if err == nil {
			err = switchProtocols.Write(conn)
		}
		if err == nil {
			fmt.Fprintf(conn, "GET /status HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
			_, err = io.Copy(io.Discard, conn)
		}
		arrived <- err
	}()
	ctx, cancel := context.WithCancel(context.Background())
	go dialer.Dial(ctx)
	golden.Check(<-arrived)
	cancel()
	const about = "cmd/buildlet of September 2026 and the Dialer of Go's revdial/v2: "
	control.Save("v2-control", about+"the control connection")
	pickedUp.Save("v2-pickup", about+"the pick-up")
}

var switchProtocols = &http.Response{StatusCode: http.StatusSwitchingProtocols, Proto: "HTTP/1.1"}
