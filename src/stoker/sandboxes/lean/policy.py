"""What code in a lean sandbox may ask of the kernel: a default-deny list in the shape of Docker's.

Stricter than Docker's where a function has no use for it: no `ptrace` and its kin (one process of a
sandbox has no business in the memory of another; a debugger is not run here), no AF_NETLINK, AF_ALG
or AF_VSOCK, no io_uring, no `modify_ldt`, no file handles, nothing that Docker ties to a capability.
`clone3` is not in the list: its flags lie in memory where a filter cannot look, so it does not
exist here and libc falls back to `clone`, whose flags are looked at.
"""

from __future__ import annotations

from socket import AF_INET, AF_INET6, AF_UNIX

from stoker.linux.seccomp import WORD, Argument, Policy

_FILES = """
access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 execve execveat faccessat
faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr
flistxattr flock fremovexattr fsetxattr fstat fstatfs fsync ftruncate futimesat getcwd getdents
getdents64 getxattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl lchown lgetxattr
link linkat listxattr llistxattr lremovexattr lseek lsetxattr lstat mkdir mkdirat mknod mknodat
newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead
readlink readlinkat readv removexattr rename renameat renameat2 rmdir sendfile setxattr splice stat
statfs statx symlink symlinkat sync sync_file_range syncfs tee truncate umask unlink unlinkat utime
utimensat utimes vmsplice write writev cachestat
"""
_MEMORY = """
brk get_mempolicy madvise map_shadow_stack membarrier memfd_create mincore mlock mlock2 mlockall mmap
mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages
"""
_PROCESSES = """
alarm arch_prctl capget capset clone exit exit_group fork futex futex_requeue futex_wait futex_waitv
futex_wake get_robust_list get_thread_area getcpu getegid geteuid getgid getgroups getitimer getpgid
getpgrp getpid getppid getpriority getresgid getresuid getrlimit getrusage getsid gettid getuid
ioprio_get ioprio_set kill pause pidfd_open pidfd_send_signal prctl prlimit64 restart_syscall rseq
rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
sched_setscheduler sched_yield seccomp set_robust_list set_thread_area set_tid_address setfsgid setfsuid
setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid
setuid sigaltstack tgkill tkill vfork wait4 waitid waitpid landlock_add_rule landlock_create_ruleset
landlock_restrict_self
"""
_TALK = """
accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg
sendmsg sendto setsockopt shutdown socket socketpair epoll_create epoll_create1 epoll_ctl epoll_pwait
epoll_pwait2 epoll_wait eventfd eventfd2 poll ppoll pselect6 select signalfd signalfd4 io_cancel
io_destroy io_getevents io_pgetevents io_setup io_submit mq_getsetattr mq_notify mq_open mq_timedreceive
mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop shmat shmctl shmdt
shmget
"""
_TIME = """
adjtimex clock_adjtime clock_getres clock_gettime clock_nanosleep getrandom gettimeofday nanosleep
sysinfo time timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create
timerfd_gettime timerfd_settime times uname
"""
_REFUSED = """
acct add_key bpf chroot clock_settime delete_module fanotify_init fanotify_mark finit_module fsconfig
fsmount fsopen fspick init_module ioperm iopl kcmp kexec_file_load kexec_load keyctl listmount
lookup_dcookie mbind migrate_pages modify_ldt mount mount_setattr move_mount move_pages name_to_handle_at
nfsservctl open_by_handle_at open_tree open_tree_attr perf_event_open pidfd_getfd pivot_root
process_madvise process_mrelease process_vm_readv process_vm_writev ptrace quotactl quotactl_fd reboot
request_key set_mempolicy set_mempolicy_home_node setdomainname sethostname setns settimeofday statmount
stime swapoff swapon syslog sysfs umount umount2 unshare uselib userfaultfd ustat vhangup
"""

# CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. 0x80, NEWTIME, is no flag of
# `clone`: there it belongs to the exit signal, which may be any.
_NEW_NAMESPACES = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_FAMILIES = (AF_UNIX, AF_INET, AF_INET6)

# What the walls are made with: a zygote loads the first program once, each sandbox the second at their end.
WALLS = frozenset("chroot clone3 mount sethostname setns umount2 unshare".split())

POLICY = Policy(
    allowed=frozenset(f"{_FILES} {_MEMORY} {_PROCESSES} {_TALK} {_TIME}".split()),
    allowed_if={"personality": tuple(Argument(0, WORD, value) for value in _PERSONALITIES)},
    refused=frozenset(_REFUSED.split()),
    refused_if={
        "clone": tuple(Argument(0, flag, flag) for flag in _NEW_NAMESPACES),
        "ioctl": (Argument(1, WORD, _TIOCSTI), Argument(1, WORD, _TIOCLINUX)),
        "socket": (
            Argument(0, 0, max(_FAMILIES)),
            *(Argument(0, WORD, family) for family in range(max(_FAMILIES)) if family not in _FAMILIES),
        ),
    },
)
