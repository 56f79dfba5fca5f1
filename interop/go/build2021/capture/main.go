// Capture records what Go's buildlet client and Go's buildlet, both of 2021, say to each other.
//
//	capture DIRECTORY BUILDLET
//
// It has ports 5936 and 2200, where that buildlet expects an SSH server, so it wants a network namespace of its own.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/build/buildlet"
	"interop/golden"
)

const machine, proxy, ssh = "127.0.0.1:5936", "127.0.0.1:5937", "127.0.0.1:2200"

func main() {
	scratch, err := os.MkdirTemp("", "capture")
	golden.Check(err)
	defer os.RemoveAll(scratch)
	machine := exec.Command(os.Args[2], "-listen", machine, "-halt=false", "-workdir="+scratch)
	machine.Env = []string{"HOME=" + scratch, "PATH=" + os.Getenv("PATH")}
	golden.Check(machine.Start())
	defer machine.Process.Kill()
	records := make(chan *golden.Record, 16)
	go serve(listen(proxy), records)
	go greet(listen(ssh))

	ctx := context.Background()
	keep := func(name string, call func(client *buildlet.Client) error) {
		client := buildlet.NewClient(proxy, buildlet.NoKeyPair)
		for range 100 {
			if err = call(client); err == nil {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		golden.Check(err)
		var record *golden.Record
		for len(records) > 0 {
			record = <-records
		}
		record.Save(name, "Go's buildlet client and cmd/buildlet, both of November 2021")
	}
	keep("status", func(client *buildlet.Client) error {
		_, err := client.Status(ctx)
		return err
	})
	keep("write", func(client *buildlet.Client) error {
		return client.Put(ctx, strings.NewReader("hello\n"), "sub/file", 0o640)
	})
	keep("exec", func(client *buildlet.Client) error {
		var output bytes.Buffer
		remote, err := client.Exec(ctx, "/bin/sh", buildlet.ExecOpts{SystemLevel: true, Output: &output, Args: []string{"-c", "echo hello; exit 42"}})
		if err == nil && remote.Error() != "exit status 42" {
			err = remote
		}
		return err
	})
	keep("connect-ssh", func(client *buildlet.Client) error {
		conn, err := client.ConnectSSH("", "")
		if err != nil {
			return err
		}
		fmt.Fprintf(conn, "SSH-2.0-client\r\n")
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err = io.ReadFull(conn, make([]byte, len(banner)))
		return err
	})
}

// serve passes on what clients ask, each connection with a record of its own.
func serve(listener net.Listener, records chan<- *golden.Record) {
	for {
		client, err := listener.Accept()
		golden.Check(err)
		server, err := net.Dial("tcp", machine)
		if err != nil {
			client.Close()
			continue
		}
		record := &golden.Record{}
		records <- record
		client = record.Tap(client, "machine", "client")
		go func() {
			io.Copy(server, client)
			server.Close()
		}()
		go func() {
			io.Copy(client, server)
			client.Close()
		}()
	}
}

// greet is an SSH server, as far as it goes; it waits for the client, for whom its first words might be lost.
func greet(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		golden.Check(err)
		go func() {
			conn.Read(make([]byte, 64))
			fmt.Fprint(conn, banner)
		}()
	}
}

func listen(address string) net.Listener {
	listener, err := net.Listen("tcp", address)
	golden.Check(err)
	return listener
}

const banner = "SSH-2.0-server\r\n"
