package ttyd

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"backendai/internal/runner/process"
)

func TestUpstreamClient(t *testing.T) {
	r := serve(t, "/bin/sh")
	c := r.connect(t, "", size{100, 30}, nil)
	c.wait("ready> ")
	if !strings.HasPrefix(c.title, "sh (") {
		t.Errorf("title %q", c.title)
	}
	c.typed("stty size; echo $TERM $COLORTERM; pwd\r")
	c.wait("30 100\r\nxterm-256color truecolor\r\n" + r.opts.Home)
	c.send(msgResize, `{"columns":123,"rows":45}`)
	c.typed("while [ \"$(stty size)\" != '45 123' ]; do :; done; echo si''zed\r")
	c.wait("sized")
	c.typed("exit 3\r")
	c.wait("[the shell ended: exit code 3; press Enter for a new one]")
	for c.next() {
	}
	if got := websocket.CloseStatus(c.closed); got != websocket.StatusNormalClosure {
		t.Errorf("closed with %v, want the code that makes the client offer a new shell", got)
	}
}

func TestPauseHoldsOutput(t *testing.T) {
	r := serve(t, "/bin/sh")
	a, b := r.connect(t, "x", std, nil), r.connect(t, "x", std, nil)
	a.wait("ready> ")
	a.send(msgPause, "")
	a.typed("echo one''two\r") // handled after the pause, being later on the same connection
	b.wait("onetwo")
	a.typed("echo three''four\r")
	b.wait("threefour")
	if strings.Contains(a.output.String(), "onetwo") {
		t.Fatal("output went to a paused client")
	}
	a.send(msgResume, "")
	a.wait("onetwo")
	a.wait("threefour")
}

func TestMessagesAreBinaryAndRaw(t *testing.T) {
	r := serve(t, `stty raw -echo; printf '\303'; read x; printf '\244\377'; read x`)
	c := r.connect(t, "", std, nil)
	c.wait("\xc3")
	c.typed("\n")
	c.wait("\xa4\xff")
}

func TestDeadShellOffersANewOne(t *testing.T) {
	r := serve(t, "/bin/sh")
	c := r.connect(t, "x", std, &resume{})
	c.wait("ready> ")
	c.typed("kill -9 $$\r")
	c.until("the exit", func() bool { return c.exit != nil })
	if *c.exit != (exit{137, "signal: killed"}) {
		t.Errorf("exit %+v", *c.exit)
	}
	if list := r.Terminals(); len(list) != 0 {
		t.Errorf("a terminal without a shell is listed: %v", list)
	}
	late := r.connect(t, "x", std, &resume{})
	late.until("the exit", func() bool { return late.exit != nil })
	c.output.Reset()
	c.send(msgNew, "")
	c.wait("ready> ")
	c.typed("echo ag''ain\r")
	c.wait("again")
	late.wait("again")
	if c.exit != nil || late.exit != nil {
		t.Error("viewers were not told of the new shell")
	}
}

func TestNoShell(t *testing.T) {
	r := serveOptions(t, Options{Shell: func() (string, error) { return "", process.ErrNoShell }})
	c := r.connect(t, "", std, &resume{})
	c.wait(process.ErrNoShell.Error())
	c.until("the exit", func() bool { return c.exit != nil })
	plain := r.connect(t, "", std, nil)
	plain.wait(process.ErrNoShell.Error())
}

func TestShellThatLeavesItsTerminal(t *testing.T) {
	r := serve(t, `exec sh -c 'trap "" HUP; exec 0<&- 1>&- 2>&-; while :; do sleep 100; done'`)
	c := r.connect(t, "", std, &resume{})
	c.until("the exit", func() bool { return c.exit != nil })
	if c.exit.Text != "signal: killed" {
		t.Errorf("exit %+v", *c.exit)
	}
}

func TestOutputOfABackgroundJobAfterTheShell(t *testing.T) {
	r := serve(t, `trap '' HUP; (while echo x; do :; done) & exit 4`)
	c := r.connect(t, "", std, &resume{})
	c.sink = func([]byte) {}
	c.until("the exit", func() bool { return c.exit != nil })
	if c.exit.Code != 4 {
		t.Errorf("exit %+v", *c.exit)
	}
}

func TestEndAndTerminals(t *testing.T) {
	r := serve(t, "trap '' HUP; echo up; while :; do read x; done")
	c := r.connect(t, "work", std, &resume{})
	c.wait("up")
	list := r.Terminals()
	if len(list) != 1 || list[0].Name != "work" || list[0].Viewers != 1 || list[0].PID == 0 || list[0].Cols != 80 || list[0].Rows != 24 {
		t.Fatalf("terminals %+v", list)
	}
	if err := r.End("other"); !errors.Is(err, ErrNoTerminal) {
		t.Errorf("ending what is not there: %v", err)
	}
	if err := r.End("work"); err != nil { // the shell ignores the hang-up: it is killed
		t.Fatal(err)
	}
	for c.next() {
	}
	if websocket.CloseStatus(c.closed) != websocket.StatusNormalClosure || len(r.Terminals()) != 0 {
		t.Errorf("after End: %v, %v", c.closed, r.Terminals())
	}
}

func TestServeEndsEverything(t *testing.T) {
	r := serve(t, "/bin/sh")
	clients := []*client{r.connect(t, "a", std, nil), r.connect(t, "b", std, &resume{}), r.connect(t, "b", std, &resume{})}
	for _, c := range clients {
		c.wait("ready> ")
	}
	clients[1].typed("yes\r")
	clients[1].wait("y\r\ny\r\n")
	go r.stop()
	for _, c := range clients {
		c.sink = func([]byte) {}
		for c.next() {
		}
	}
	r.tasks.Wait()
}

func TestDetachedTerminalLivesOn(t *testing.T) {
	r := serve(t, "/bin/sh")
	c := r.connect(t, "job", std, &resume{})
	c.wait("ready> ")
	c.typed("read x; echo got $x\r")
	c.wait("\r\n")
	instance, pid := c.state.Instance, r.Terminals()[0].PID
	c.cut()
	again := r.connect(t, "job", std, &resume{})
	again.typed("hello\r")
	again.wait("got hello")
	if again.state.Instance != instance || r.Terminals()[0].PID != pid {
		t.Error("the terminal is another one")
	}
}

func TestLimits(t *testing.T) {
	r := serve(t, "read x; read y") // without children: idle
	var keep []*client
	for i := range maxTerminals {
		c := r.connect(t, fmt.Sprint("t", i), std, &resume{})
		c.until("state", func() bool { return c.states > 0 })
		keep = append(keep, c)
	}
	c := r.connect(t, "more", std, &resume{})
	for c.next() {
	}
	if !strings.Contains(c.closed.Error(), "end one") {
		t.Errorf("the terminal above the limit: %v", c.closed)
	}
	// One that nobody watches and that does nothing makes room.
	_ = keep[7].conn.Close(websocket.StatusNormalClosure, "")
	for deadline := time.Now().Add(10 * time.Second); ; {
		c = r.connect(t, "more", std, &resume{})
		if c.next(); c.closed == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no room was made")
		}
	}
	for _, info := range r.Terminals() {
		if info.Name == "t7" {
			t.Error("the idle terminal is still there")
		}
	}
	for i := range maxViewers {
		c := r.connect(t, "t0", std, &resume{})
		c.next()
		if full := i >= maxViewers-1; full != (c.closed != nil) {
			t.Fatalf("viewer %d: %v", i+2, c.closed)
		}
	}
}

func TestBadNamesAndMessages(t *testing.T) {
	r := serve(t, "/bin/sh")
	for _, name := range []string{"../x", "a%20b", "-x", strings.Repeat("a", 65), "%1b"} {
		c := r.connect(t, name, std, nil)
		for c.next() {
		}
		if !strings.Contains(c.closed.Error(), "terminal name") {
			t.Errorf("name %q: %v", name, c.closed)
		}
	}
	for _, bad := range []string{"9", "1{", "Ax", "A-1", "\xff"} {
		c := r.connect(t, "", std, &resume{})
		c.write([]byte(bad))
		for c.next() {
		}
		if websocket.CloseStatus(c.closed) != websocket.StatusUnsupportedData {
			t.Errorf("message %q: %v", bad, c.closed)
		}
	}
	c := r.connect(t, "", std, nil)
	_ = c.conn.Write(t.Context(), websocket.MessageBinary, make([]byte, maxMessage+1))
	for c.next() {
	}
	if websocket.CloseStatus(c.closed) != websocket.StatusMessageTooBig {
		t.Errorf("an endless message: %v", c.closed)
	}
}
