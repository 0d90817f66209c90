#!/bin/sh
# Tries, from inside a session, what its user must not be able to do. Each
# attempt prints one line: "refused NAME" or "ESCAPED NAME", with what was got.
# It ends with "done", and with exit code 1 when anything escaped.
#
# Needs a POSIX shell; system calls are made by python3, where there is one, and
# otherwise told as "skipped system calls".

escaped=0
refused() { echo "refused $1"; }
got() { escaped=1; echo "ESCAPED $*"; }

# bounded COMMAND…: the command, for 10 seconds at most where that can be had.
if command -v timeout >/dev/null 2>&1; then bounded() { timeout 10 "$@"; }; else bounded() { "$@"; }; fi

# try NAME COMMAND…: the command must fail.
try() {
	name=$1
	shift
	if bounded "$@" </dev/null >/dev/null 2>&1; then got "$name"; else refused "$name"; fi
}

# hidden NAME PATH: reading the path must fail or give nothing.
hidden() {
	if [ -n "$(bounded head -c 64 "$2" 2>/dev/null </dev/null | tr -d '\0')" ]; then got "$1" "$2"; else refused "$1"; fi
}

# written NAME PATH TEXT: writing must fail.
written() { try "$1" sh -c 'printf %s "$2" >"$1"' sh "$2" "$3"; }

status() { sed -n "s/^$1:[[:space:]]*//p" /proc/self/status; }

# --- what this process is
[ "$(id -u)" != 0 ] && [ "$(id -g)" != 0 ] && refused uid-zero || got uid-zero "$(id)"
for set in CapInh CapPrm CapEff CapBnd CapAmb; do
	case $(status $set) in *[!0]*) got "capability-$set" "$(status $set)" ;; *) refused "capability-$set" ;; esac
done
[ "$(status NoNewPrivs)" = 1 ] && refused new-privileges || got new-privileges
[ "$(status Seccomp)" = 2 ] && refused no-system-call-filter || got no-system-call-filter
root=$(sed -n 's/^Uid:[[:space:]]*//p' /proc/[0-9]*/status 2>/dev/null | grep -c -w 0)
[ "$root" = 0 ] && refused process-of-root || got process-of-root "$root of them"

# --- to become root
dir=$(mktemp -d 2>/dev/null || echo "$HOME/escapes.$$")
mkdir -p "$dir"
cp /bin/sh "$dir/rootshell" 2>/dev/null || cp "$(command -v sh)" "$dir/rootshell"
try chown-to-root chown 0:0 "$dir/rootshell"
chmod 6755 "$dir/rootshell" 2>/dev/null
[ "$(bounded "$dir/rootshell" -p -c 'id -u' 2>/dev/null)" = 0 ] && got setuid-shell || refused setuid-shell
for program in 'su -c id' 'sudo -n id' 'doas -n id' 'pkexec id' 'newgrp root -c id' 'runuser -u root id' 'setpriv --reuid 0 id'; do
	name=become-root-${program%% *}
	case $(bounded sh -c "$program" </dev/null 2>/dev/null) in *uid=0*) got "$name" ;; *) refused "$name" ;; esac
done
for file in $(find / -xdev -perm -4000 -user 0 2>/dev/null | head -n 50); do
	case $(bounded "$file" -c 'id' </dev/null 2>/dev/null) in *uid=0*) got setuid-binary "$file" ;; esac
done
refused setuid-binaries-listed

# --- namespaces and mounts
try user-namespace unshare -U true
try user-namespace-as-root unshare -Ur true
try mount-in-user-namespace unshare -Urm sh -c 'mount -t tmpfs none /mnt'
try pid-namespace unshare -p -f true
try net-namespace unshare -n true
try mount-tmpfs mount -t tmpfs none /tmp
try mount-bind mount --bind / /tmp
try mount-proc mount -t proc proc /tmp
try remount-proc mount -o remount,rw /proc
try remount-sys mount -o remount,rw /sys
try umount-mask umount /proc/kcore
try chroot chroot / true
try enter-pid1 nsenter -t 1 -m true

# --- the kernel's settings
written core-pattern /proc/sys/kernel/core_pattern '|/tmp/x'
written hostname /proc/sys/kernel/hostname escaped
written ip-forward /proc/sys/net/ipv4/ip_forward 1
written overcommit /proc/sys/vm/overcommit_memory 1
written modprobe /proc/sys/kernel/modprobe /tmp/x
written unprivileged-ports /proc/sys/net/ipv4/ip_unprivileged_port_start 0
written sysrq /proc/sysrq-trigger h
written uevent-helper /sys/kernel/uevent_helper /tmp/x
written apparmor /proc/self/attr/exec 'exec unconfined'
written uid-map /proc/self/uid_map '0 1000 1'
written own-oom-score /proc/self/oom_score_adj -1000
written pid1-oom-score /proc/1/oom_score_adj 1000
written sys-file /sys/kernel/mm/transparent_hugepage/enabled never
try sys-directory mkdir /sys/fs/cgroup/escape
for file in cgroup.procs memory.max pids.max cpu.max memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us release_agent memory/release_agent notify_on_release; do
	[ -e "/sys/fs/cgroup/$file" ] && written "cgroup-$file" "/sys/fs/cgroup/$file" max
done
hidden kernel-memory /proc/kcore
hidden kernel-keys /proc/keys
hidden timer-list /proc/timer_list
hidden scheduler /proc/sched_debug
hidden firmware /sys/firmware/dmi/tables/DMI
hidden acpi /proc/acpi/wakeup
if grep -q -v '^0*[[:space:]]' /proc/kallsyms 2>/dev/null; then got kernel-addresses; else refused kernel-addresses; fi

# --- devices
try device-node mknod "$dir/disk" b 8 0
try device-node-memory mknod "$dir/mem" c 1 1
for device in mem kmem port kmsg sda vda nvme0n1 loop0 loop-control dm-0 fuse kvm net/tun vhost-net mapper/control snapshot uinput; do
	try "device-$device" sh -c "exec 3<>/dev/$device"
done
try device-in-dev mknod /dev/escape c 1 1

# --- PID 1
for path in mem environ fd/0 fd/3 fd/6 root/etc/passwd cwd exe maps auxv stack syscall; do
	hidden "pid1-$path" "/proc/1/$path"
done
try pid1-files ls /proc/1/fd/
try pid1-root ls /proc/1/root/
try pid1-root-by-parent ls /proc/1/root/../../
try pid1-program-overwritten sh -c 'exec 3>>/proc/1/exe'
for signal in 1 2 3 4 6 7 8 9 10 11 12 13 14 15 17 18 19 20 21 22 24 25 26 27 28 31 34 50 64; do
	kill "-$signal" 1 2>/dev/null
done
case $(sed -n 's/^State:[[:space:]]*//p' /proc/1/status) in [RSD]*) refused signals-to-pid1 ;; *) got signals-to-pid1 ;; esac

# --- the host
for path in /var/run/docker.sock /run/containerd/containerd.sock /run/crun /run/runc /var/lib/backend.ai /run/backend.ai /.dockerenv/.. ; do
	[ "$path" = /.dockerenv/.. ] && continue
	[ -e "$path" ] && got "host-path $path" || refused "host-path-$path"
done
try hard-link-to-a-file-of-root ln /etc/shadow "$dir/shadow"
hidden passwords /etc/shadow
try write-etc sh -c 'echo x >>/etc/passwd'
try write-usr touch /usr/bin/escape
[ "$(nice -n -5 nice 2>/dev/null || nice)" -ge "$(nice)" ] && refused negative-nice || got negative-nice
try raise-limits sh -c 'ulimit -H -n unlimited'
try kernel-log dmesg
try clock date -s '2001-01-01'
try hostname-call hostname escaped
try load-module modprobe dummy
try network-link ip link add escape type dummy
try network-address ip addr add 10.255.255.1/32 dev lo
try firewall iptables -F

# --- system calls
if command -v python3 >/dev/null 2>&1; then
	timeout 120 python3 - "$dir" <<'PYTHON' || escaped=1
import ctypes, errno, os, platform, resource, signal, socket, struct, sys, time

libc = ctypes.CDLL(None, use_errno=True)
arm = platform.machine() == 'aarch64'
escaped = False

def say(name, ok, what=''):
    global escaped
    escaped = escaped or ok
    print(('ESCAPED ' if ok else 'refused ') + name, what if ok else '', flush=True)

def attempt(name, call):
    """call must raise or return something false."""
    try:
        result = call()
    except (OSError, ValueError, PermissionError) as e:
        return say(name, False)
    say(name, bool(result), result)

def syscall(name, x86, a64, *args):
    """The call must fail: a result below zero."""
    number = a64 if arm else x86
    args = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    libc.syscall.restype = ctypes.c_long
    say(name, libc.syscall(ctypes.c_long(number), *args) >= 0)

def done(call):
    def run():
        call()
        return True
    return run

def forked(name, call):
    """What could end this process is tried in a child, which exits 7 on success."""
    pid = os.fork()
    if pid == 0:
        try:
            ok = call()
        except BaseException:
            ok = False
        os._exit(7 if ok else 0)
    _, status = os.waitpid(pid, 0)
    say(name, os.WIFEXITED(status) and os.WEXITSTATUS(status) == 7)

work = sys.argv[1]
for name in ('setuid', 'setgid', 'seteuid', 'setegid'):
    forked('call-' + name, done(lambda: getattr(os, name)(0)))
forked('call-setgroups', done(lambda: os.setgroups([0])))
forked('call-setresuid', done(lambda: os.setresuid(0, 0, 0)))

for name, flag in {'user': 0x10000000, 'mount': 0x00020000, 'pid': 0x20000000, 'net': 0x40000000,
                   'ipc': 0x08000000, 'uts': 0x04000000, 'cgroup': 0x02000000, 'time': 0x00000080}.items():
    forked('unshare-' + name, lambda: libc.unshare(flag) == 0)
def clone_user():
    pid = libc.syscall(ctypes.c_long(220 if arm else 56), ctypes.c_long(0x10000000 | signal.SIGCHLD), None, None, None, None)
    if pid == 0:
        os._exit(0)
    return pid > 0
forked('clone-user-namespace', clone_user)
def clone3_user():
    args = struct.pack('8Q', 0x10000000, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
    pid = libc.syscall(ctypes.c_long(435), args, ctypes.c_long(64))
    if pid == 0:
        os._exit(0)
    return pid > 0
forked('clone3-user-namespace', clone3_user)
def join(ns):
    fd = os.open('/proc/1/ns/' + ns, os.O_RDONLY)
    return libc.setns(fd, 0) == 0
for ns in ('mnt', 'pid', 'net', 'user', 'uts', 'ipc', 'cgroup'):
    forked('join-' + ns, lambda: join(ns))

t = work.encode()
syscall('mount-call', 165, 40, b'none', t, b'tmpfs', 0, None)
syscall('mount-overlay', 165, 40, b'none', t, b'overlay', 0, b'lowerdir=/,upperdir=/tmp,workdir=/tmp')
syscall('umount-call', 166, 39, b'/proc', 2)
syscall('pivot-root', 155, 41, b'.', b'.')
syscall('chroot-call', 161, 51, b'/')
syscall('fsopen', 430, 430, b'tmpfs', 0)
syscall('open-tree', 428, 428, -100, b'/', 1)
syscall('mount-setattr', 442, 442, -100, b'/', 0, struct.pack('4Q', 0, 1, 0, 0), 32)
syscall('open-by-handle', 304, 265, -100, struct.pack('Ii8s', 8, 1, b'\2\0\0\0\0\0\0\0'), 0)

syscall('ptrace-attach-pid1', 101, 117, 16, 1, 0, 0)
syscall('ptrace-seize-pid1', 101, 117, 0x4206, 1, 0, 0)
buf = ctypes.create_string_buffer(8)
iov = struct.pack('PP', ctypes.addressof(buf), 8)
syscall('read-memory-of-pid1', 310, 270, 1, iov, 1, struct.pack('PP', 0x400000, 8), 1, 0)
syscall('write-memory-of-pid1', 311, 271, 1, iov, 1, struct.pack('PP', 0x400000, 8), 1, 0)
def steal(fd):
    p = libc.syscall(ctypes.c_long(434), ctypes.c_long(1), ctypes.c_long(0))
    return p >= 0 and libc.syscall(ctypes.c_long(438), ctypes.c_long(p), ctypes.c_long(fd), ctypes.c_long(0)) >= 0
for fd in (3, 4, 6):
    forked('take-descriptor-%d-of-pid1' % fd, lambda: steal(fd))
syscall('kcmp-pid1', 312, 272, os.getpid(), 1, 0, 0, 0)
for number in (signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT, signal.SIGBUS, 33, 34):
    info = struct.pack('iiiiii', number, 0, -1, 0, os.getpid(), os.getuid()) + b'\0' * 104
    libc.syscall(ctypes.c_long(138 if arm else 129), ctypes.c_long(1), ctypes.c_long(number), info)
    libc.syscall(ctypes.c_long(240 if arm else 297), ctypes.c_long(1), ctypes.c_long(1), ctypes.c_long(number), info)
time.sleep(0.2)
state = open('/proc/1/status').read().split('State:')[1].split()[0]
say('queued-signals-to-pid1', state in 'TtXZ', state)

for name, args in {
    'raw-socket-icmp': (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    'raw-socket': (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
    'raw-socket-ipv6': (socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
    'packet-socket': (socket.AF_PACKET, socket.SOCK_RAW, 0x0300),
    'vsock': (40, socket.SOCK_STREAM, 0),
    'netlink-audit': (socket.AF_NETLINK, socket.SOCK_RAW, 9),
}.items():
    if name == 'netlink-audit':
        def use():
            s = socket.socket(*args)
            s.send(struct.pack('IHHII', 16, 1000, 5, 1, 0))
            kind, code = struct.unpack_from('4xH10xi', s.recv(4096))
            return not (kind == 2 and code < 0)
        attempt(name, use)
    else:
        attempt(name, done(lambda: socket.socket(*args)))
def route():
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    # a link "escape" of kind dummy is asked for
    body = struct.pack('BxHiII', 0, 0, 0, 0, 0) + struct.pack('HH7sx', 11, 3, b'escape\0')
    s.send(struct.pack('IHHII', 16 + len(body), 16, 0x605, 1, 0) + body)
    return struct.unpack_from('16xi', s.recv(4096))[0] == 0
attempt('netlink-new-link', route)

syscall('keyring-add', 248, 217, b'user', b'escape', b'x', 1, -3)
syscall('keyring-control', 250, 219, 0, -3, 1)
syscall('keyring-request', 249, 218, b'user', b'escape', None, 0)
syscall('bpf', 321, 280, 0, struct.pack('IIII', 1, 4, 4, 1) + b'\0' * 104, 120)
syscall('perf-events', 298, 241, struct.pack('IIQ', 1, 112, 0) + b'\0' * 96, 0, -1, -1, 0)
syscall('userfaultfd', 323, 282, 0)
syscall('io-uring', 425, 425, 1, ctypes.create_string_buffer(120))
syscall('fanotify', 300, 262, 0, 0)
syscall('kexec', 246, 104, 0, 0, None, 0)
syscall('init-module', 175, 105, b'', 0, b'')
syscall('finit-module', 313, 273, 0, b'', 0)
syscall('delete-module', 176, 106, b'dummy', 0)
syscall('reboot', 169, 142, 0xfee1dead, 672274793, 0)
syscall('swapon', 167, 224, b'/tmp/x', 0)
syscall('swapoff', 168, 225, b'/tmp/x')
syscall('accounting', 163, 89, None)
syscall('kernel-log-call', 103, 116, 3, buf, 8)
syscall('set-time', 227, 112, 0, struct.pack('qq', 1, 0))
syscall('adjust-time', 159, 171, struct.pack('I', 0x8001) + b'\0' * 204)
syscall('set-hostname', 170, 161, b'escaped', 7)
syscall('set-domainname', 171, 162, b'escaped', 7)
syscall('quota', 179, 60, 0, b'/dev/sda1', 0, None)
if not arm:
    syscall('io-privilege', 172, 0, 3)
    syscall('io-ports', 173, 0, 0x80, 1, 1)
forked('real-time', done(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))))
forked('priority', done(lambda: os.setpriority(os.PRIO_PROCESS, 0, -10)))
def more():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard + 1))
forked('limit-of-files', done(more))

# Services of the host and of the cloud around it.
gateways = []
try:
    for line in open('/proc/net/route').read().splitlines()[1:]:
        field = line.split()
        if field[1] == '00000000':
            gateways.append(socket.inet_ntoa(struct.pack('=I', int(field[2], 16))))
except OSError:
    pass
for host, port in [('169.254.169.254', 80)] + [(g, p) for g in gateways for p in (22, 80, 111, 2375, 6443, 8090)]:
    attempt('connect-%s:%d' % (host, port), done(lambda: socket.create_connection((host, port), 0.5).close()))
sys.exit(1 if escaped else 0)
PYTHON
else
	echo "skipped system calls: there is no python3"
fi

rm -rf "$dir"
echo done
exit $escaped
