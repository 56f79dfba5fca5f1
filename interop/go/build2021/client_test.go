// Go's buildlet client against our buildlet: directly, over TLS with a key that Go makes, and through our coordinator.
package build2021

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/build"
	"golang.org/x/build/buildlet"
)

func TestDirect(t *testing.T) {
	kp, err := buildlet.NewKeyPair()
	check(t, err)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		check(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	const addr = "127.0.0.1:5936"
	machine := exec.Command(os.Getenv("INTEROP_COORDINATOR"), "buildlet", "--listen", addr,
		"--tls-cert", file("cert", kp.CertPEM), "--tls-key", file("key", kp.KeyPEM), "--password-file", file("password", kp.Password()),
		"--workdir", filepath.Join(dir, "work"))
	// The coordinator's own machine ends with its standard input.
	_, err = machine.StdinPipe()
	check(t, err)
	machine.Stderr = os.Stderr
	check(t, machine.Start())
	t.Cleanup(func() { machine.Process.Kill(); machine.Wait() })
	client := buildlet.NewClient(addr, kp)
	for range 100 {
		if _, err = client.Status(t.Context()); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	check(t, err)
	try(t, client)
	t.Run("ConnectSSH", func(t *testing.T) {
		const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJKPZbLxvyB1NlFbF7hJZ8a0vV0Zz9aJY8fC6Qd2pZ0k"
		conn, err := client.ConnectSSH("root", key)
		check(t, err)
		defer conn.Close()
		fmt.Fprintf(conn, "SSH-2.0-Go\r\n")
		line, err := bufio.NewReader(conn).ReadString('\n')
		check(t, err)
		if !strings.HasPrefix(line, "SSH-2.0-") {
			t.Fatalf("%q", line)
		}
	})
	t.Run("Close", func(t *testing.T) {
		check(t, client.Close())
		if err := machine.Wait(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestThroughCoordinator(t *testing.T) {
	client := &buildlet.CoordinatorClient{
		Auth:     buildlet.UserPass{Username: "user-gopher", Password: "875a7345b291621360b36e62a0fc6a14"},
		Instance: build.CoordinatorInstance("localhost:8119"),
	}
	machine, err := client.CreateBuildlet("linux-amd64-localdev")
	check(t, err)
	try(t, machine)
	t.Run("Close", func(t *testing.T) {
		check(t, machine.Close())
		list, err := client.RemoteBuildlets()
		if err != nil || len(list) != 0 {
			t.Fatal(list, err)
		}
	})
}

func try(t *testing.T, client *buildlet.Client) {
	ctx := t.Context()
	run := func(t *testing.T, opts buildlet.ExecOpts, cmd string) (string, error) {
		t.Helper()
		var output bytes.Buffer
		opts.Output = &output
		remote, err := client.Exec(ctx, cmd, opts)
		check(t, err)
		return output.String(), remote
	}
	t.Run("Status", func(t *testing.T) {
		status, err := client.Status(ctx)
		if err != nil || status.Version < 23 {
			t.Fatal(status, err)
		}
	})
	t.Run("WorkDir", func(t *testing.T) {
		dir, err := client.WorkDir(ctx)
		if err != nil || !filepath.IsAbs(dir) {
			t.Fatal(dir, err)
		}
	})
	t.Run("Put", func(t *testing.T) {
		check(t, client.Put(ctx, strings.NewReader("#!/bin/sh\necho $0 $1; exit $2\n"), "sub/script", 0o755))
	})
	t.Run("Exec", func(t *testing.T) {
		output, err := run(t, buildlet.ExecOpts{Args: []string{"one", "42"}}, "sub/script")
		if !strings.HasSuffix(output, "sub/script one\n") || err == nil || err.Error() != "exit status 42" {
			t.Fatalf("%q %v", output, err)
		}
		if _, err := run(t, buildlet.ExecOpts{Args: []string{"one", "0"}}, "sub/script"); err != nil {
			t.Fatal(err)
		}
		_, err = run(t, buildlet.ExecOpts{SystemLevel: true, Args: []string{"-c", "kill -9 $$"}}, "sh")
		if err == nil || err.Error() != "signal: killed" {
			t.Fatal(err)
		}
	})
	t.Run("ExecEnvironment", func(t *testing.T) {
		opts := buildlet.ExecOpts{
			SystemLevel: true, Dir: "sub", ExtraEnv: []string{"A=1", "A=2"}, Path: []string{"$WORKDIR/bin", "$PATH"},
			Args: []string{"-c", "echo $A; basename $PWD; echo $PATH"},
		}
		output, err := run(t, opts, "/bin/sh")
		work, _ := client.WorkDir(ctx)
		if err != nil || !strings.HasPrefix(output, "2\nsub\n"+work+"/bin:") {
			t.Fatalf("%q %v", output, err)
		}
		opts = buildlet.ExecOpts{SystemLevel: true, Path: []string{}, Args: []string{"-c", "/usr/bin/env"}}
		output, err = run(t, opts, "/bin/sh")
		if err != nil || regexp.MustCompile(`(?m)^PATH=.*/bin`).MatchString(output) {
			t.Fatalf("%q %v", output, err)
		}
	})
	t.Run("ExecCancel", func(t *testing.T) {
		cancelled, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := client.Exec(cancelled, "sleep", buildlet.ExecOpts{SystemLevel: true, Args: []string{"600"}})
		// Go of this year has no ErrTimeout where output has begun, and counts the machine as broken.
		if err == nil || !errors.Is(err, buildlet.ErrTimeout) && !strings.Contains(err.Error(), "deadline exceeded") {
			t.Fatal(err)
		}
	})
	t.Run("ExecPathRules", func(t *testing.T) {
		for _, cmd := range []string{"../script", "sub/../../script"} {
			if _, err := client.Exec(ctx, cmd, buildlet.ExecOpts{}); err == nil {
				t.Errorf("%s ran", cmd)
			}
		}
		if err := client.Put(ctx, strings.NewReader("x"), "../x", 0o644); err == nil {
			t.Error("../x was written")
		}
	})
	t.Run("PutTar", func(t *testing.T) {
		check(t, client.PutTar(ctx, archive(t), "tree"))
		output, err := run(t, buildlet.ExecOpts{SystemLevel: true, Args: []string{"tree/a/word"}}, "cat")
		if err != nil || output != "word" {
			t.Fatalf("%q %v", output, err)
		}
	})
	t.Run("PutTarFromURL", func(t *testing.T) {
		files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/tree.tar.gz" {
				http.NotFound(w, r)
				return
			}
			io.Copy(w, archive(t))
		}))
		defer files.Close()
		check(t, client.PutTarFromURL(ctx, files.URL+"/tree.tar.gz", "fetched"))
		output, err := run(t, buildlet.ExecOpts{SystemLevel: true, Args: []string{"fetched/a/word"}}, "cat")
		if err != nil || output != "word" {
			t.Fatalf("%q %v", output, err)
		}
		if err := client.PutTarFromURL(ctx, files.URL+"/nothing", "fetched"); err == nil || !strings.Contains(err.Error(), "404 Not Found") {
			t.Fatal(err)
		}
	})
	t.Run("ListDir", func(t *testing.T) {
		var names []string
		err := client.ListDir(ctx, "tree", buildlet.ListDirOpts{Recursive: true, Digest: true}, func(e buildlet.DirEntry) {
			names = append(names, e.Name())
			if want := fmt.Sprintf("%x", sha1.Sum([]byte("word"))); e.Name() == "a/word" && (e.Digest() != want || e.Perm() != "-rw-r-----") {
				t.Error(e)
			}
		})
		if err != nil || strings.Join(names, " ") != "a/ a/word" {
			t.Fatal(names, err)
		}
	})
	t.Run("GetTar", func(t *testing.T) {
		body, err := client.GetTar(ctx, "tree")
		check(t, err)
		defer body.Close()
		zipped, err := gzip.NewReader(body)
		check(t, err)
		reader, found := tar.NewReader(zipped), false
		for {
			header, err := reader.Next()
			if err == io.EOF {
				break
			}
			check(t, err)
			found = found || strings.TrimPrefix(header.Name, "./") == "a/word" && header.Size == 4
		}
		if !found {
			t.Fatal("a/word is missing")
		}
	})
	t.Run("RemoveAll", func(t *testing.T) {
		check(t, client.RemoveAll(ctx, "tree", "sub"))
		check(t, client.ListDir(ctx, ".", buildlet.ListDirOpts{Recursive: true}, func(e buildlet.DirEntry) {
			if strings.HasPrefix(e.Name(), "tree") || strings.HasPrefix(e.Name(), "sub") {
				t.Error(e)
			}
		}))
	})
	t.Run("Heartbeats", func(t *testing.T) {
		// Go asks for a sign of life each ten seconds, beside what runs.
		output, err := run(t, buildlet.ExecOpts{SystemLevel: true, Args: []string{"-c", "sleep 11; echo alive"}}, "sh")
		if err != nil || output != "alive\n" {
			t.Fatalf("%q %v", output, err)
		}
	})
}

func archive(t *testing.T) io.Reader {
	var buffer bytes.Buffer
	zipped := gzip.NewWriter(&buffer)
	writer := tar.NewWriter(zipped)
	check(t, writer.WriteHeader(&tar.Header{Name: "a/", Typeflag: tar.TypeDir, Mode: 0o755}))
	check(t, writer.WriteHeader(&tar.Header{Name: "a/word", Typeflag: tar.TypeReg, Mode: 0o640, Size: 4}))
	_, err := writer.Write([]byte("word"))
	check(t, err)
	check(t, writer.Close())
	check(t, zipped.Close())
	return &buffer
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
