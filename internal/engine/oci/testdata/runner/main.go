// The command runner is PID 1 of sessions in this engine's tests: it speaks as
// much of the control language as the engine's suite needs, and does what a
// hostile session would.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"backendai/internal/control"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "try" {
		try(os.Args[2])
		return
	}
	var config control.Config
	must(json.NewDecoder(os.NewFile(control.ConfigFD, "config")).Decode(&config))
	fmt.Printf("runner of %s\n", config.SessionID)
	record := os.NewFile(control.RecordFD, "record")
	end := func(code int) {
		must(json.NewEncoder(record).Encode(control.ExitRecord{ExitCode: code, Reason: "self-terminated", At: time.Now()}))
		os.Exit(code)
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP) // deaf, as the real one
	ssh, err := net.Listen("tcp", "127.0.0.1:2200")
	must(err)
	go serveBanner(ssh)
	l, err := net.FileListener(os.NewFile(control.ListenFD, "control"))
	must(err)
	mux := http.NewServeMux()
	health := func(w http.ResponseWriter, r *http.Request) {
		mac := hmac.New(sha256.New, config.Secret)
		io.WriteString(mac, r.FormValue("nonce"))
		json.NewEncoder(w).Encode(control.Health{SessionID: config.SessionID, Proof: mac.Sum(nil), PID: os.Getpid()})
	}
	mux.HandleFunc("GET /v1/health", health)
	mux.HandleFunc("GET /v1/ready", health)
	mux.HandleFunc("POST /v1/shutdown", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		go end(0)
	})
	mux.HandleFunc("POST /test/exit", func(_ http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.FormValue("code"))
		must(err)
		end(code)
	})
	mux.HandleFunc("POST /test/eat", func(http.ResponseWriter, *http.Request) {
		var all [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = byte(i)
			}
			all = append(all, b)
		}
	})
	mux.HandleFunc("POST /test/exec", func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		cmd := exec.Command(r.Form["arg"][0], r.Form["arg"][1:]...)
		cmd.Dir = "/"
		out, err := cmd.CombinedOutput()
		if err != nil {
			w.WriteHeader(http.StatusTeapot)
			out = append(out, err.Error()...)
		}
		w.Write(out)
	})
	must(http.Serve(l, mux))
}

// serveBanner greets every connection as an SSH server does and echoes what it
// is sent until the other half closes.
func serveBanner(l net.Listener) {
	for {
		c, err := l.Accept()
		must(err)
		go func() {
			defer c.Close()
			io.WriteString(c, "SSH-2.0-test\r\n")
			io.Copy(c, c)
		}()
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "test runner:", err)
		os.Exit(99)
	}
}
