// Package e2e tests the product as its users have it: the built program, a real
// server with real containers, real clients and a real browser. Everything in
// it carries the build tag "integration" and needs root; "make e2e" runs it.
//
// One server serves most tests; those that crash it start it again, and those
// that need another one have their own. Stock images take minutes to build and
// are kept between runs in /var/cache/backend.ai-e2e, by what they are made of.
// Every test removes its own sessions: at the end nothing of any server may be
// left on the machine.
package e2e
