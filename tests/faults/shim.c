/* Put in front of libc: calls on files that fail, and a wall clock that jumps.
 *
 * fault_arm(operation, prefix, nth, error): the nth call of `operation` from now on, on a file whose
 * path begins with `prefix`, fails with `error`; so do those after it where `nth` is negative.
 * FAULT_CLOCK names a file of one double: seconds that are added to the wall clock.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static char armed[16], prefix[4096], failed[4096];
static long nth, seen;
static int error;

void fault_arm(const char *operation, const char *path, long number, int code) {
    strncpy(armed, operation, sizeof armed - 1);
    strncpy(prefix, path, sizeof prefix - 1);
    failed[0] = 0;
    nth = number;
    error = code;
    __atomic_store_n(&seen, 0, __ATOMIC_SEQ_CST);
}

long fault_calls(void) { return __atomic_load_n(&seen, __ATOMIC_SEQ_CST); }

const char *fault_failed(void) { return failed; }

static int fails(const char *operation, int descriptor) {
    char link[64], path[sizeof failed];
    if (strcmp(operation, armed) != 0) return 0;
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (length < 0) return 0;
    path[length] = 0;
    if (strncmp(path, prefix, strlen(prefix)) != 0) return 0;
    long now = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
    if (now != labs(nth) && !(nth < 0 && now > -nth)) return 0;
    memcpy(failed, path, length + 1);
    errno = error;
    return 1;
}

#define NEXT(name, type, parameters) \
    static type (*real) parameters; \
    if (!real) real = (type (*) parameters) dlsym(RTLD_NEXT, #name)

#define ON_FILES(name, operation, type, parameters, arguments) \
    type name parameters { \
        NEXT(name, type, parameters); \
        return fails(operation, fd) ? -1 : real arguments; \
    }

ON_FILES(read, "read", ssize_t, (int fd, void *to, size_t n), (fd, to, n))
ON_FILES(pread, "read", ssize_t, (int fd, void *to, size_t n, off_t at), (fd, to, n, at))
ON_FILES(pread64, "read", ssize_t, (int fd, void *to, size_t n, off64_t at), (fd, to, n, at))
ON_FILES(readv, "read", ssize_t, (int fd, const struct iovec *to, int n), (fd, to, n))
ON_FILES(preadv64, "read", ssize_t, (int fd, const struct iovec *to, int n, off64_t at), (fd, to, n, at))
ON_FILES(preadv64v2, "read", ssize_t, (int fd, const struct iovec *to, int n, off64_t at, int how),
         (fd, to, n, at, how))
ON_FILES(write, "write", ssize_t, (int fd, const void *of, size_t n), (fd, of, n))
ON_FILES(pwrite, "write", ssize_t, (int fd, const void *of, size_t n, off_t at), (fd, of, n, at))
ON_FILES(pwrite64, "write", ssize_t, (int fd, const void *of, size_t n, off64_t at), (fd, of, n, at))
ON_FILES(fsync, "fsync", int, (int fd), (fd))

/* The descriptor is free afterwards, as on Linux, and no folder's fails: nothing is written back. */
int close(int fd) {
    NEXT(close, int, (int));
    struct stat found;
    int saved = errno, file = fstat(fd, &found) == 0 && S_ISREG(found.st_mode);
    errno = saved;
    int bad = file && fails("close", fd), code = errno, done = real(fd);
    if (!bad) return done;
    errno = code;
    return -1;
}

static double jump(void) {
    static const double *shift;
    static int looked;
    if (!looked) {
        const char *path = getenv("FAULT_CLOCK");
        int fd = path ? open(path, O_RDONLY) : -1;
        void *page = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, fd, 0);
        if (page != MAP_FAILED) shift = page;
        looked = 1;
    }
    return shift ? *shift : 0.0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    NEXT(clock_gettime, int, (clockid_t, struct timespec *));
    int done = real(clock, now);
    if (!done && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += jump();
    return done;
}

time_t time(time_t *to) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to) *to = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec found;
    (void) zone;
    clock_gettime(CLOCK_REALTIME, &found);
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return 0;
}
