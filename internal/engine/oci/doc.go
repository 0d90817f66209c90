// Package oci is the native engine: it runs sessions with an OCI runtime (crun,
// or runc) on overlayfs, cgroups and network namespaces of this machine, with
// no daemon between.
//
// What a session is made of:
//
//   - a folder below the state directory with a small state file, written before
//     anything else is made, so that whatever a crash leaves can be removed;
//   - an overlay of the image's layers below one of the engine's own (accounts and
//     mount points, the same for all sessions of an image), the home folder, and
//     folders of the host as idmapped mounts;
//   - a network namespace that the engine makes and keeps open, so that it can
//     open sockets inside it without the session's help;
//   - a container whose PID 1 is the runner as uid 1000 without a capability.
//
// What need not outlive the server lies in memory, see [Options.RunDir]: on a disk,
// making and removing it would cost more than all the rest.
//
// Everything that has a name on the whole machine (cgroups, bridge, packet
// filter, subnet) derives it from the state directory, so that several servers
// live side by side. Mounts stay in a mount namespace of the server's own, see
// [Isolate].
//
// Sessions have no user namespace: it costs 11 ms a start, and a process that is
// never uid 0, has no capability, cannot gain one (no_new_privs) and may not
// make namespaces (seccomp) has nothing more to lose by it.
package oci
