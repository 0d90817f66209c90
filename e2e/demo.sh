#!/usr/bin/env bash
# The main job, shown to a stranger: a server, a session, its Jupyter on a local
# port. "make demo" calls it after the build. With a terminal it stays until
# Ctrl+C; without one (as in CI) it asks Jupyter over HTTP and stops.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/bin:$PATH"

state=$(mktemp -d /var/tmp/backend.ai-demo.XXXXXX)
export XDG_CONFIG_HOME="$state/config" XDG_STATE_HOME="$state/client"
unset BACKEND_ENDPOINT BACKEND_ACCESS_KEY BACKEND_SECRET_KEY

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() {
	printf '\n\033[1m$ %s\033[0m\n' "$*"
	"$@"
}

app_pid='' server_pid=''
finish() {
	trap - EXIT INT TERM
	[ -z "$app_pid" ] || kill -INT "$app_pid" 2>/dev/null && wait "$app_pid" 2>/dev/null || true
	backend.ai rm -f mysession >/dev/null 2>&1 || true
	[ -z "$server_pid" ] || kill "$server_pid" 2>/dev/null && wait "$server_pid" 2>/dev/null || true
	if [ -n "$(ls "$state/server/engine/sessions" 2>/dev/null)" ]; then
		echo "The session could not be removed; start 'backend.ai server --state-dir $state/server' and remove it." >&2
		exit 1
	fi
	rm -rf "$state"
}
trap finish EXIT
trap 'exit 130' INT TERM

say "Starting a server (state in $state)"
# In a session of its own, so that Ctrl+C leaves it alone until mysession is removed.
setsid backend.ai server --state-dir "$state/server" --listen 127.0.0.1:8090 >"$state/server.log" 2>&1 &
server_pid=$!
for _ in $(seq 100); do
	grep -q ready "$state/server.log" 2>/dev/null && break
	kill -0 "$server_pid" 2>/dev/null || { cat "$state/server.log" >&2; exit 1; }
	sleep 0.1
done

say "Building the stock image \"python\" from the distribution's packages (some minutes)"
backend.ai image build python

show backend.ai start -t mysession python

printf '\n\033[1m$ backend.ai app -b 9900 mysession jupyter\033[0m\n'
backend.ai app -b 9900 mysession jupyter &
app_pid=$!

# The first request starts Jupyter inside the session and waits for it.
if ! curl --retry 50 --retry-connrefused --retry-delay 0 --retry-max-time 60 -fs -o "$state/page" http://localhost:9900/api; then
	echo "Jupyter did not answer at http://localhost:9900" >&2
	exit 1
fi
say "Jupyter $(sed 's/.*"version": *"\([^"]*\)".*/\1/' "$state/page") answers at http://localhost:9900"

if [ -t 1 ] && [ -z "${CI:-}" ]; then
	say "Open it in a browser. Ctrl+C ends the demo and removes everything."
	wait "$app_pid"
fi
