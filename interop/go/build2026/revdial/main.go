// Peer speaks Go's own revdial/v2 to the tests of the crate revdial.
//
//	peer listener REGISTER PICKUP   registers at REGISTER, picks up at PICKUP, and serves HTTP
//	peer dialer <PEM                serves registrations, and asks the machine that registers
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	revdial "golang.org/x/build/revdial/v2"
)

func main() {
	switch os.Args[1] {
	case "listener":
		listener(os.Args[2], os.Args[3])
	case "dialer":
		dialer()
	}
}

func listener(register, pickUp string) {
	config := &tls.Config{InsecureSkipVerify: true}
	control, err := tls.Dial("tcp", register, config)
	check(err)
	request, err := http.NewRequest("GET", "/reverse", nil)
	check(err)
	request.Header.Set("X-Revdial-Version", "2")
	check(request.Write(control))
	response, err := http.ReadResponse(bufio.NewReader(control), request)
	check(err)
	if response.StatusCode != 101 {
		log.Fatal(response.Status)
	}
	ln := revdial.NewListener(control, func(ctx context.Context) (net.Conn, error) {
		return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", pickUp)
	})
	http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "you said %s", r.FormValue("word"))
	}))
}

func dialer() {
	pem, err := io.ReadAll(os.Stdin)
	check(err)
	certificate, err := tls.X509KeyPair(pem, pem)
	check(err)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}})
	check(err)
	mux := http.NewServeMux()
	mux.Handle("/revdial", revdial.ConnHandler())
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/revdial?"+r.URL.RawQuery, http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/reverse", func(w http.ResponseWriter, r *http.Request) {
		control, _, err := w.(http.Hijacker).Hijack()
		check(err)
		(&http.Response{StatusCode: http.StatusSwitchingProtocols, Proto: "HTTP/1.1"}).Write(control)
		d := revdial.NewDialer(control, r.FormValue("path"))
		ask(d)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, err = d.Dial(ctx)
		fmt.Println("one too many:", err)
		d.Close()
	})
	fmt.Println(ln.Addr())
	check(http.Serve(ln, mux))
}

// ask sends sixteen requests, each over a connection of its own, and keeps the connections open.
func ask(d *revdial.Dialer) {
	client := &http.Client{Transport: &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return d.Dial(ctx) },
		MaxIdleConnsPerHost: 16,
	}}
	var asking, holding sync.WaitGroup
	asking.Add(16)
	holding.Add(16)
	for n := range 16 {
		go func() {
			response, err := client.Get(fmt.Sprintf("http://machine/?word=%d", n))
			check(err)
			holding.Done()
			holding.Wait()
			body, err := io.ReadAll(response.Body)
			check(err)
			if want := fmt.Sprintf("you said %d", n); string(body) != want {
				log.Fatalf("%q, want %q", body, want)
			}
			asking.Done()
		}()
	}
	asking.Wait()
	fmt.Println("asked")
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
