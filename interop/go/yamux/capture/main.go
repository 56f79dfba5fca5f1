// Capture records the frames of a short life with hashicorp/yamux at both ends.
//
//	capture DIRECTORY
package main

import (
	"io"
	"net"

	"github.com/hashicorp/yamux"
	"interop/golden"
)

func main() {
	here, there := net.Pipe()
	var record golden.Record
	config := yamux.DefaultConfig()
	config.EnableKeepAlive = false
	config.LogOutput = io.Discard
	client, err := yamux.Client(record.Tap(here, "client", "server"), config)
	golden.Check(err)
	server, err := yamux.Server(there, config)
	golden.Check(err)

	stream, err := client.OpenStream()
	golden.Check(err)
	accepted, err := server.AcceptStream()
	golden.Check(err)
	say(stream, accepted, "hello")
	say(accepted, stream, "well met")
	_, err = client.Ping()
	golden.Check(err)
	golden.Check(stream.Close())
	_, err = accepted.Read(make([]byte, 1))
	if err != io.EOF {
		golden.Check(err)
	}
	golden.Check(accepted.Close())
	_, err = stream.Read(make([]byte, 1))
	if err != io.EOF {
		golden.Check(err)
	}
	golden.Check(client.GoAway())
	_, err = client.Ping()
	golden.Check(err)
	record.Save("yamux", "hashicorp/yamux v0.1.2 at both ends, without keep-alives")
}

func say(from, to net.Conn, text string) {
	_, err := from.Write([]byte(text))
	golden.Check(err)
	_, err = io.ReadFull(to, make([]byte, len(text)))
	golden.Check(err)
}
