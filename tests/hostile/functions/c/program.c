// Attacks that need the kernel without a language between. The argument names the attack; each line
// written is something that went through.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void busy_loop(void) { for (;;); }

static void *busy(void *nothing) { busy_loop(); return nothing; }

static void *idle(void *nothing) { pause(); return nothing; }

static void busy_threads(void) {
    pthread_t thread;
    for (int i = 0; i < 16; i++) pthread_create(&thread, NULL, busy, NULL);
    busy_loop();
}

static void fork_bomb(void) { for (;;) fork(); }

static void vfork_bomb(void) { for (;;) if (vfork() == 0) fork_bomb(); }

static void sibling_bomb(void) {  // each the child of the parent: nobody below has to be waited for
    for (;;) if (syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0) == 0) pause();
}

static void thread_bomb(void) {
    pthread_t thread;
    int made = 0;
    while (made < 100000 && pthread_create(&thread, NULL, idle, NULL) == 0) made++;
    if (made > 64) printf("%d threads\n", made);
}

static void deaf(void) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    for (int number = 1; number < 65; number++) signal(number, SIG_IGN);
    // The C library keeps 32 and 33 for itself; the kernel does not.
    unsigned long everything = ~0ul;
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, &everything, NULL, 8);
    for (;;) pause();
}

static int deeper(volatile int depth) {
    volatile char page[4096];
    page[depth % 4096] = 1;
    return deeper(depth + 1) + page[0];
}

static void overflows_its_stack(void) { exit(deeper(0)); }

static void jumps_to_nowhere(void) { ((void (*)(void))16)(); }

static void sparse_file(void) {
    int file = open("/tmp/sparse", O_CREAT | O_WRONLY, 0600);
    if (ftruncate(file, 100l << 30) == 0) puts("100 GB");
    signal(SIGXFSZ, SIG_DFL);
    pwrite(file, "x", 1, 100l << 30);
    puts("no signal");
}

static void timers(void) {
    struct sigevent quiet = {.sigev_notify = SIGEV_NONE};
    struct itimerspec soon = {{0, 1000}, {0, 1000}};
    timer_t timer;
    int made = 0;
    while (made < 1000000 && timer_create(CLOCK_MONOTONIC, &quiet, &timer) == 0) {
        timer_settime(timer, 0, &soon, NULL);
        made++;
    }
    for (int i = 0; i < 2000; i++) {
        int file = timerfd_create(CLOCK_REALTIME, 0);
        if (file < 0) break;
        timerfd_settime(file, 0, &soon, NULL);
    }
    if (made == 1000000) puts("a million timers");
}

static void queued_signals(void) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    union sigval value = {0};
    int queued = 0;
    while (queued < 1000000 && sigqueue(getpid(), SIGRTMIN, value) == 0) queued++;
    if (queued == 1000000) puts("a million signals");
}

// What must be refused, and must say so.

static void refused(const char *name, long result) {
    if (result >= 0) printf("%s\n", name);
    else if (errno != EPERM && errno != ENOSYS && errno != EACCES && errno != EAFNOSUPPORT && errno != EINVAL)
        printf("%s: %s\n", name, strerror(errno));
}

#define TRY(name, ...) refused(#name, syscall(SYS_##name, ##__VA_ARGS__))

static void narrow_kernel(void) {
    char buffer[256] = {0};
    TRY(io_uring_setup, 1, buffer);
    TRY(userfaultfd, 0);
    TRY(userfaultfd, 1);
    TRY(bpf, 0, buffer, 72);
    TRY(perf_event_open, buffer, 0, -1, -1, 0);
    TRY(keyctl, 0, -3, 1);
    TRY(add_key, "user", "x", "y", 1, -3);
    TRY(request_key, "user", "x", 0, -3);
    TRY(open_by_handle_at, 0, buffer, 0);
    TRY(name_to_handle_at, AT_FDCWD, "/", buffer, buffer + 128, 0);
    TRY(kexec_load, 0, 0, 0, 0);
    TRY(init_module, buffer, 1, "");
    TRY(finit_module, 0, "", 0);
    TRY(delete_module, "x", 0);
    TRY(mount, "none", "/tmp", "tmpfs", 0, 0);
    TRY(umount2, "/tmp", MNT_DETACH);
    TRY(pivot_root, "/tmp", "/tmp");
    TRY(chroot, "/tmp");
    TRY(open_tree, AT_FDCWD, "/", 1);
    TRY(fsopen, "tmpfs", 0);
    TRY(move_mount, 0, "", 0, "", 0);
    TRY(mount_setattr, AT_FDCWD, "/", 0, buffer, 32);
    TRY(setns, 0, 0);
    TRY(unshare, CLONE_NEWUSER);
    TRY(unshare, CLONE_NEWNS);
    TRY(unshare, CLONE_NEWUSER | CLONE_NEWNET);
    TRY(ptrace, PTRACE_TRACEME, 0, 0, 0);
    TRY(ptrace, PTRACE_SEIZE, getppid(), 0, 0);
    TRY(process_vm_readv, getppid(), buffer, 1, buffer, 1, 0);
    TRY(process_vm_writev, getppid(), buffer, 1, buffer, 1, 0);
    TRY(process_madvise, 0, buffer, 1, 4, 0);
    TRY(kcmp, getpid(), getppid(), 0, 0, 0);
    TRY(pidfd_getfd, 0, 3, 0);
    TRY(reboot, 0xfee1dead, 672274793, 0, 0);
    TRY(swapon, "/tmp/x", 0);
    TRY(sethostname, "x", 1);
    TRY(setdomainname, "x", 1);
    TRY(settimeofday, buffer, 0);
    TRY(clock_settime, 0, buffer);
    TRY(syslog, 3, buffer, 16);
    TRY(acct, "/tmp/x");
    TRY(quotactl, 0, "/", 0, buffer);
    TRY(vhangup);
    TRY(fanotify_init, 0, 0);
    TRY(lookup_dcookie, 0, buffer, 16);
    TRY(personality, 0x0400000);
    TRY(personality, 0x0040000);
    TRY(setuid, 0);
    TRY(setgid, 0);
    TRY(setgroups, 0, 0);
    TRY(setresuid, 0, 0, 0);
    TRY(clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    TRY(clone, CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0);
    TRY(clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0);
    TRY(clone3, buffer, 88);
    TRY(unshare, 0x80);
    for (int family = 0; family < 64; family++)
        if (family != AF_UNIX && family != AF_INET && family != AF_INET6) {
            int line = socket(family, SOCK_DGRAM, 0);
            if (line < 0) line = socket(family, SOCK_RAW, 0);
            if (line >= 0) printf("socket of family %d\n", family);
        }
#ifdef SYS_iopl
    TRY(iopl, 3);
    TRY(ioperm, 0x80, 1, 1);
    TRY(modify_ldt, 1, buffer, 16);
#endif
}

// A wider number whose lower half is harmless, or harmful, must not be told apart from it.
static void wide_numbers(void) {
    TRY(socket, (1ul << 32) | 38, SOCK_SEQPACKET, 0);
    TRY(ioctl, 0, (1ul << 32) | TIOCSTI, "x");
    TRY(clone, (1ul << 32) | CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    TRY(personality, (1ul << 32) | 0x0400000);
}

// The doors for programs of other architectures.
static void foreign_calls(void) {
#ifdef __x86_64__
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20));
    printf("32 bits: %ld\n", result);
    syscall(0x40000000 + 39);
    puts("x32");
#else
    raise(SIGSYS);
#endif
}

static void foreign_calls_of_x32(void) {
#ifdef __x86_64__
    if (syscall(0x40000000 + 39) >= 0) puts("x32");
#endif
}

// Fills the kernel's table of locks with locks of single bytes.
static void locks(void) {
    int file = open("/tmp/locked", O_CREAT | O_RDWR, 0600);
    for (long at = 0; at < 2000000; at += 2) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
        if (fcntl(file, F_SETLK, &lock) < 0) break;
    }
}

static void many_mappings(void) {
    for (int made = 0; made < 200000; made++)
        if (mmap(NULL, 4096, made % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
            break;
}

static void filters_of_its_own(void) {
    // One that allows all, again and again, until the kernel has had enough.
    unsigned char allow[8] = {0x06, 0, 0, 0, 0, 0, 0xff, 0x7f};
    struct { unsigned short length; void *program; } filter = {1, allow};
    for (int made = 0; made < 100000; made++)
        if (prctl(PR_SET_SECCOMP, 2, &filter) < 0) break;
}

static void burns_entropy_and_maps(void) {
    static char page[1 << 20];
    for (int i = 0; i < 200; i++) syscall(SYS_getrandom, page, sizeof page, 0);
}

static void inherits_a_dead_parent(void) {
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    fclose(stdout);
    close(1);
    for (int i = 0; i < 20; i++)
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, 0);
            setsid();
            if (fork() == 0) pause();
            _exit(0);
        }
}

static const struct { const char *name; void (*attack)(void); } attacks[] = {
    {"busy_loop", busy_loop}, {"busy_threads", busy_threads}, {"fork_bomb", fork_bomb},
    {"vfork_bomb", vfork_bomb}, {"sibling_bomb", sibling_bomb}, {"thread_bomb", thread_bomb}, {"deaf", deaf},
    {"overflows_its_stack", overflows_its_stack}, {"jumps_to_nowhere", jumps_to_nowhere},
    {"sparse_file", sparse_file}, {"timers", timers}, {"queued_signals", queued_signals},
    {"narrow_kernel", narrow_kernel}, {"wide_numbers", wide_numbers}, {"foreign_calls", foreign_calls},
    {"foreign_calls_of_x32", foreign_calls_of_x32}, {"locks", locks}, {"many_mappings", many_mappings},
    {"filters_of_its_own", filters_of_its_own}, {"burns_entropy_and_maps", burns_entropy_and_maps},
    {"inherits_a_dead_parent", inherits_a_dead_parent},
};

int main(int count, char **arguments) {
    for (size_t i = 0; i < sizeof attacks / sizeof *attacks; i++)
        if (count == 2 && strcmp(arguments[1], attacks[i].name) == 0) {
            attacks[i].attack();
            return 0;
        }
    return 64;
}
