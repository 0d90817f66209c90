// Package e2e tests the product as its users have it: the built program, a real
// server with real containers, real clients and a real browser. Everything in
// it carries the build tag "integration" and needs root; "make e2e" runs it.
//
// One server serves all tests, so that stock images are built once; tests that
// crash it start it again. Every test removes its own sessions.
package e2e
