package session_test

import (
	"os"
	"runtime"
	"testing"
	"time"
)

// TestMain fails when a test leaves goroutines behind.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	deadline := time.After(5 * time.Second)
	for runtime.NumGoroutine() > before && code == 0 {
		select {
		case <-deadline:
			buf := make([]byte, 1<<20)
			println("goroutines left behind:\n" + string(buf[:runtime.Stack(buf, true)]))
			code = 1
		default:
			runtime.Gosched()
		}
	}
	os.Exit(code)
}
