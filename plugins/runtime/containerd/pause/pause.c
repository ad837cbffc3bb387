// The process of a pod's sandbox: it holds the pod's namespaces, reaps what is
// orphaned in a shared process namespace, and ends on SIGTERM or SIGINT.
//
// It has no libc, so that the executable is a few hundred bytes. All signals that it
// cares about are blocked and taken one at a time with rt_sigtimedwait: the kernel
// queues a blocked signal for a namespace's init too, so that no handler is needed.

#if defined(__x86_64__)
enum { NR_wait4 = 61, NR_exit_group = 231, NR_sigprocmask = 14, NR_sigtimedwait = 128 };

static long syscall4(long n, long a, long b, long c, long d) {
	long ret;
	register long r10 __asm__("r10") = d;
	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
	return ret;
}
#elif defined(__aarch64__)
enum { NR_wait4 = 260, NR_exit_group = 94, NR_sigprocmask = 135, NR_sigtimedwait = 137 };

static long syscall4(long n, long a, long b, long c, long d) {
	register long x8 __asm__("x8") = n;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
	return x0;
}
#elif defined(__arm__)
enum { NR_wait4 = 114, NR_exit_group = 248, NR_sigprocmask = 175, NR_sigtimedwait = 177 };

static long syscall4(long n, long a, long b, long c, long d) {
	register long r7 __asm__("r7") = n;
	register long r0 __asm__("r0") = a;
	register long r1 __asm__("r1") = b;
	register long r2 __asm__("r2") = c;
	register long r3 __asm__("r3") = d;
	__asm__ volatile("svc #0" : "+r"(r0) : "r"(r7), "r"(r1), "r"(r2), "r"(r3) : "memory");
	return r0;
}
#else
#error "pause: add the system call convention of this architecture"
#endif

enum { SIGINT = 2, SIGTERM = 15, SIGCHLD = 17, SIG_BLOCK = 0, WNOHANG = 1 };

#define BIT(sig) (1ull << ((sig) - 1))

__attribute__((noreturn)) void _start(void) {
	unsigned long long set = BIT(SIGINT) | BIT(SIGTERM) | BIT(SIGCHLD);

	syscall4(NR_sigprocmask, SIG_BLOCK, (long)&set, 0, sizeof set);
	for (;;) {
		long sig = syscall4(NR_sigtimedwait, (long)&set, 0, 0, sizeof set);
		if (sig == SIGTERM || sig == SIGINT)
			break;
		// Signals of one kind coalesce: one SIGCHLD may stand for many children.
		while (syscall4(NR_wait4, -1, 0, WNOHANG, 0) > 0)
			;
	}
	for (;;)
		syscall4(NR_exit_group, 0, 0, 0, 0);
}
