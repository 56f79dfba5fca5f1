// Sends the same requests to Go's buildlets and to ours, and compares what a client can see of the replies.
//
//	differential OURS DIFFERENCES LEVEL=THEIRS...
//
// OURS is the program `buildlet` of this workspace, THEIRS one of Go's, DIFFERENCES the file of what may differ, and why.
// It prints a line for each request, `ok` or `FAILED`, and wants a network namespace of its own, or the ports from 5936 on.
package main

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, "differential:", err)
		os.Exit(1)
	}
}

func run(ours, differences string, others []string) error {
	allowed, err := readDifferences(differences)
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "differential")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	files, err := serveFiles()
	if err != nil {
		return err
	}
	peers := []*peer{{name: "ours", program: ours, addr: "127.0.0.1:5936"}}
	for n, other := range others {
		level, program, _ := strings.Cut(other, "=")
		peers = append(peers, &peer{name: level, program: program, addr: fmt.Sprintf("127.0.0.1:%d", 5937+n)})
	}
	var started sync.WaitGroup
	for _, peer := range peers {
		peer.files = files
		if err := peer.start(scratch); err != nil {
			return err
		}
		defer peer.process.Kill()
		started.Go(peer.askAll)
	}
	started.Wait()
	for _, theirs := range peers[1:] {
		for _, request := range requests {
			report(request.name, theirs, peers[0], allowed)
		}
	}
	for _, difference := range allowed {
		if !difference.seen {
			fmt.Printf("FAILED  the differences: %s, %s, %s: there is none\n", difference.request, difference.peer, difference.field)
		}
	}
	return nil
}

// report says what differs in the replies to a request, and is not allowed to.
func report(name string, theirs, ours *peer, allowed []*difference) {
	left, right := theirs.replies[name], ours.replies[name]
	fields := maps.Clone(left)
	maps.Copy(fields, right)
	var wrong []string
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		if left[field] != right[field] && !isAllowed(allowed, name, theirs.name, field, left[field], right[field]) {
			wrong = append(wrong, fmt.Sprintf("| %s | %s | %s | `%s` | `%s` |", name, theirs.name, field, escape(left[field]), escape(right[field])))
		}
	}
	group := fmt.Sprintf("Go's buildlet (%s) and ours, the same requests", theirs.name)
	if len(wrong) == 0 {
		fmt.Printf("ok      %s: %s\n", group, name)
		return
	}
	fmt.Printf("FAILED  %s: %s\n", group, name)
	fmt.Fprintln(os.Stderr, strings.Join(wrong, "\n"))
}

// A peer is a buildlet in listen mode, and what it replied.
type peer struct {
	name, program, addr, files string
	workdir                    string
	command                    *exec.Cmd
	process                    *os.Process
	replies                    map[string]reply
}

const password = "secret"

func (p *peer) start(scratch string) error {
	home := filepath.Join(scratch, p.name)
	p.workdir = filepath.Join(home, "work")
	p.replies = map[string]reply{}
	if err := os.MkdirAll(p.workdir, 0o755); err != nil {
		return err
	}
	secret := filepath.Join(home, "password")
	if err := os.WriteFile(secret, []byte(password), 0o600); err != nil {
		return err
	}
	args := []string{"-listen", p.addr, "-workdir", p.workdir, "-halt=false"}
	if p.name == "ours" {
		args = []string{"--listen", p.addr, "--workdir", p.workdir, "--password-file", secret}
	}
	p.command = exec.Command(p.program, args...)
	p.command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "META_password=" + password, "OUTSIDE=1"}
	log, err := os.Create(filepath.Join(home, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	p.command.Stdout, p.command.Stderr = log, log
	if err := p.command.Start(); err != nil {
		return err
	}
	p.process = p.command.Process
	for range 300 {
		conn, err := net.Dial("tcp", p.addr)
		if err == nil {
			return conn.Close()
		}
		time.Sleep(100 * time.Millisecond)
	}
	text, _ := os.ReadFile(log.Name())
	return fmt.Errorf("%s does not listen: %s", p.program, text)
}

func (p *peer) askAll() {
	for _, request := range requests {
		p.replies[request.name] = request.ask(p)
	}
}

// serveFiles is whom a buildlet fetches archives from.
func serveFiles() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	handler := http.NewServeMux()
	handler.HandleFunc("/good", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(archive(file("fetched", "word")))) })
	handler.HandleFunc("/text", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("no archive")) })
	handler.Handle("/moved", http.RedirectHandler("/good", http.StatusFound))
	handler.Handle("/round", http.RedirectHandler("/round", http.StatusFound))
	go http.Serve(listener, handler)
	return "http://" + listener.Addr().String(), nil
}
