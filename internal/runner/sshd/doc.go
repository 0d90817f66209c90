// Package sshd is the SSH server that every session has, inside the runner and
// with the session's own rights, so that ssh, scp, sftp, rsync, git and editors
// work in any image without anything installed in it.
//
// It speaks RFC 4251–4254, 8308 and 8332, and these parts of OpenSSH's PROTOCOL
// file: keepalive@, no-more-sessions@, eow@, auth-agent@ and the streamlocal
// forwardings. Public keys are the only way in, one user the only name.
//
// # Keys
//
// PrepareKeys decides once, at launch, whose keys open the session: those of
// ~/.ssh/authorized_keys where the user brought that file, else the session's
// own. The file is read again at each login and is never written.
//
// Options of a line are honoured (command, from, expiry-time, permitopen,
// permitlisten, restrict and the no-… and permitting forms) or ignored where
// ignoring takes nothing away from what they restrict (environment, user-rc,
// tunnel). A line with any other option, such as cert-authority or
// verify-required, opens nothing and is named in the log.
//
// # Host keys
//
// A session has an Ed25519 key. Clients that know nothing so new are shown an
// RSA key, which is derived from it and computed when the first of them comes.
//
// # Processes
//
// A shell without command is a login shell; a command runs as $SHELL -c. Both
// lead a session of their own. When the leader has ended, what is still in its
// pipes is sent, then what its orphans say until they are quiet, then the exit
// status; an orphan that holds a pipe open keeps nobody waiting. A client that
// goes away is a SIGHUP to the process group, which nohup survives. Neither
// ~/.ssh/environment nor ~/.ssh/rc is read.
package sshd
