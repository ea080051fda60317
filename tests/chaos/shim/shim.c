/*
 * Records what a process does to the files below one folder, and makes such calls fail, for tests of power cuts and of
 * faulty disks. Loaded with LD_PRELOAD; tests/chaos/shim/__init__.py builds it and knows the layout of its two files.
 *
 * CHAOS_SHIM_ROOT     the folder; calls on anything else go straight to the C library
 * CHAOS_SHIM_CONTROL  a file that processes and threads share: the lock that gives all events one order, and the rules
 *                     of faults, which the test changes while the processes run
 * CHAOS_SHIM_LOG      the log of events; without it nothing is recorded
 *
 * A change and its event are made under the lock, so the log has the order in which the changes happened. A sync has two
 * events: what was written before the first of them is durable when the second says that it succeeded.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { CREATE = 1, RESIZE, WRITE, RENAME, LINK, UNLINK, MKDIR, RMDIR, SYNC_BEGIN, SYNC_END, MARK, INDEX, UNKNOWN };
enum call { C_OPEN = 1, C_CREATE = 2, C_READ = 4, C_WRITE = 8, C_SYNC = 16, C_RENAME = 32, C_LINK = 64, C_UNLINK = 128,
            C_MKDIR = 256, C_RESIZE = 512, C_STAT = 1024 };
enum action { FAIL = 1, FREEZE = 2, SHORT = 3, DROP = 4, DELAY = 5 };

#define RULES 16
struct rule {
    uint32_t enabled, calls, action;
    int32_t error;
    int64_t skip;   /* calls that pass before the rule takes effect */
    int64_t times;  /* calls that it takes effect on; negative: all until it is disabled */
    int64_t seen, hits;
    uint64_t microseconds;
    char match[136]; /* part of the path below the root; "" for all, "$" at its end for a suffix */
};
struct control {
    uint32_t magic, ready;
    pthread_mutex_t lock; /* 40 bytes on x86-64 and 48 on arm64 */
    char padding[64 - sizeof(pthread_mutex_t)];
    uint64_t events, syncs;
    struct rule rules[RULES];
};
struct event {
    uint32_t magic;
    uint16_t kind, flags;
    uint32_t process;
    int32_t error;
    uint64_t inode, a, b, nanoseconds;
    uint32_t first, second; /* bytes of the two texts that follow */
};
#define MAGIC 0x43484153u

static char root[PATH_MAX];
static size_t root_length;
static struct control *control;
static int log_fd = -1;

static int raw_open(const char *path, int flags) { return (int)syscall(SYS_openat, AT_FDCWD, path, flags, 0600); }

__attribute__((constructor)) static void load(void) {
    const char *where = getenv("CHAOS_SHIM_ROOT"), *shared = getenv("CHAOS_SHIM_CONTROL"), *log = getenv("CHAOS_SHIM_LOG");
    if (!where || !shared) return;
    snprintf(root, sizeof root, "%s", where);
    root_length = strlen(root);
    int fd = raw_open(shared, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *at = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (at == MAP_FAILED) return;
    if (log) {
        int low = raw_open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC);
        if (low >= 0) { /* out of the way of programs that close what they do not know */
            log_fd = fcntl(low, F_DUPFD_CLOEXEC, 600);
            if (log_fd < 0) log_fd = low; else syscall(SYS_close, low);
        }
    }
    control = at;
}

/* Called once, by the process that makes the control file. */
int chaos_control_size(void) { return sizeof(struct control); }
int chaos_rule_offset(void) { return (int)__builtin_offsetof(struct control, rules); }
int chaos_rule_size(void) { return sizeof(struct rule); }
int chaos_make_control(const char *path) {
    int fd = raw_open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC);
    if (fd < 0 || syscall(SYS_ftruncate, fd, sizeof(struct control))) return -1;
    struct control *made = mmap(NULL, sizeof *made, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (made == MAP_FAILED) return -1;
    pthread_mutexattr_t how;
    pthread_mutexattr_init(&how);
    pthread_mutexattr_setpshared(&how, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&how, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&made->lock, &how);
    made->magic = MAGIC;
    return munmap(made, sizeof *made);
}

static void lock(void) {
    if (pthread_mutex_lock(&control->lock) == EOWNERDEAD) pthread_mutex_consistent(&control->lock);
}
static void unlock(void) { pthread_mutex_unlock(&control->lock); }

static int64_t put(struct event *event, const void *first, size_t n, const void *second, size_t m) {
    if (log_fd < 0) return 0;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    event->magic = MAGIC;
    event->process = (uint32_t)getpid();
    event->nanoseconds = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    event->first = (uint32_t)n;
    event->second = (uint32_t)m;
    struct iovec parts[3] = {{event, sizeof *event}, {(void *)first, n}, {(void *)second, m}};
    control->events++;
    ssize_t done = syscall(SYS_writev, log_fd, parts, 3);
    if (done != (ssize_t)(sizeof *event + n + m)) { /* the log is what the test believes */
        static const char text[] = "chaos shim: the log cannot be written\n";
        syscall(SYS_write, 2, text, sizeof text - 1);
        abort();
    }
    return 0;
}

/* Write to `out` the absolute form of `path`, relative to the folder `at`; return whether it is below the root. */
static int resolve(int at, const char *path, char *out) {
    char joined[PATH_MAX * 2];
    if (!control || !path) return 0;
    if (path[0] == '/') {
        snprintf(joined, sizeof joined, "%s", path);
    } else {
        char name[64];
        snprintf(name, sizeof name, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
        ssize_t n = readlink(name, joined, PATH_MAX - 1);
        if (n < 0) return 0;
        snprintf(joined + n, sizeof joined - (size_t)n, "/%s", path);
    }
    size_t length = 0;
    for (char *rest = joined, *part; (part = strtok_r(rest, "/", &rest));) {
        if (!strcmp(part, ".")) continue;
        if (!strcmp(part, "..")) {
            while (length && out[--length] != '/') {}
            continue;
        }
        size_t n = strlen(part);
        if (length + n + 2 > PATH_MAX) return 0;
        out[length++] = '/';
        memcpy(out + length, part, n);
        length += n;
    }
    out[length] = 0;
    return !strncmp(out, root, root_length) && (out[root_length] == '/' || !out[root_length]);
}

/* Return whether the file or folder open as `fd` lies below the root; then `out` and `inode` say which it is. */
static int known(int fd, char *out, uint64_t *inode) {
    struct stat status;
    char name[64];
    if (!control || fd < 0 || fd == log_fd || syscall(SYS_fstat, fd, &status)) return 0;
    if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(name, out, PATH_MAX - 1);
    if (n < 0) return 0;
    out[n] = 0;
    *inode = status.st_ino;
    return !strncmp(out, root, root_length) && (out[root_length] == '/' || !out[root_length]);
}

static uint64_t inode_at(const char *path) {
    struct stat status;
    return syscall(SYS_newfstatat, AT_FDCWD, path, &status, AT_SYMLINK_NOFOLLOW) ? 0 : status.st_ino;
}

static int matches(const struct rule *rule, const char *path) {
    size_t n = strnlen(rule->match, sizeof rule->match), m;
    const char *below = path + root_length;
    if (!n) return 1;
    if (rule->match[n - 1] != '$') return strstr(below, rule->match) != NULL;
    m = strlen(below);
    return m >= n - 1 && !strncmp(below + m - (n - 1), rule->match, n - 1);
}

static void pass(uint64_t microseconds) {
    struct timespec time = {(time_t)(microseconds / 1000000), (long)(microseconds % 1000000) * 1000};
    syscall(SYS_nanosleep, &time, NULL);
}

/* Return what a rule has for this call: 0, or its action, with errno set for FAIL and DROP. Blocks while frozen. */
static int fault(uint32_t call, const char *path) {
    int found = 0;
    for (int number = 0; number < RULES; number++) {
        struct rule *rule = &control->rules[number];
        if (!__atomic_load_n(&rule->enabled, __ATOMIC_ACQUIRE) || !(rule->calls & call) || !matches(rule, path)) continue;
        if (__atomic_fetch_add(&rule->seen, 1, __ATOMIC_RELAXED) < rule->skip) continue;
        if (rule->times >= 0 && __atomic_load_n(&rule->hits, __ATOMIC_RELAXED) >= rule->times) continue;
        __atomic_fetch_add(&rule->hits, 1, __ATOMIC_RELAXED);
        if (rule->action == DELAY) {
            pass(rule->microseconds);
        } else if (rule->action == FREEZE) {
            while (__atomic_load_n(&rule->enabled, __ATOMIC_ACQUIRE)) pass(1000);
        } else if (!found) {
            found = (int)rule->action;
            errno = rule->error;
        }
    }
    return found;
}

static void record(uint16_t kind, uint64_t inode, uint64_t a, uint64_t b, const char *from, const void *to, size_t n) {
    struct event event = {.kind = kind, .inode = inode, .a = a, .b = b};
    int kept = errno;
    put(&event, from + root_length, strlen(from) - root_length, to, n);
    errno = kept;
}

/* Add a mark to the log: what the workload has done, in the order of its writes and syncs. */
int chaos_mark(const char *text, size_t length) {
    struct event event = {.kind = MARK};
    if (!control) return -1;
    lock();
    put(&event, "", 0, text, length);
    unlock();
    return 0;
}

/* Kill `process` while it makes no change: between a change and its event, the change would be missing in the log. */
int chaos_kill(int process) {
    if (!control) return -1;
    lock();
    int result = kill(process, SIGKILL);
    pass(2000);
    unlock();
    return result;
}

/* Take part in the log and control file of another process group: for a program that was started without LD_PRELOAD. */
int chaos_join(const char *where, const char *shared, const char *log) {
    setenv("CHAOS_SHIM_ROOT", where, 1);
    setenv("CHAOS_SHIM_CONTROL", shared, 1);
    if (log && *log) setenv("CHAOS_SHIM_LOG", log, 1);
    load();
    return control ? 0 : -1;
}

/* ---- open ---- */

static int opened(int at, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    if (!resolve(at, path, full)) return (int)syscall(SYS_openat, at, path, flags, mode);
    if (flags & O_TMPFILE & ~O_DIRECTORY) { errno = EOPNOTSUPP; return -1; }
    int exists = inode_at(full) != 0;
    if (fault(!exists && (flags & O_CREAT) ? C_OPEN | C_CREATE : C_OPEN, full)) return -1;
    if (!(flags & (O_CREAT | O_TRUNC))) return (int)syscall(SYS_openat, at, path, flags, mode);
    lock();
    int fd = -1;
    if (flags & O_CREAT) {
        fd = (int)syscall(SYS_openat, at, path, flags | O_EXCL, mode);
        if (fd >= 0) {
            struct stat status;
            syscall(SYS_fstat, fd, &status);
            record(CREATE, status.st_ino, 0, 0, full, "", 0);
        }
    }
    if (fd < 0 && (!(flags & O_CREAT) || (errno == EEXIST && !(flags & O_EXCL)))) {
        fd = (int)syscall(SYS_openat, at, path, flags & ~O_CREAT, mode);
        uint64_t inode;
        char name[PATH_MAX];
        if (fd >= 0 && (flags & O_TRUNC) && known(fd, name, &inode)) record(RESIZE, inode, 0, 0, name, "", 0);
    }
    unlock();
    return fd;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
int open(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags) return opened(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags) return opened(at, path, flags | O_LARGEFILE, mode); }
int __open_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int __openat_2(int at, const char *path, int flags) { return opened(at, path, flags, 0); }
int __openat64_2(int at, const char *path, int flags) { return opened(at, path, flags, 0); }
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* ---- read and look: only their faults ---- */

static int armed(uint32_t call) {
    if (!control) return 0;
    for (int number = 0; number < RULES; number++)
        if (control->rules[number].enabled && (control->rules[number].calls & call)) return 1;
    return 0;
}
static int cannot_read(int fd) {
    char path[PATH_MAX];
    uint64_t inode;
    return armed(C_READ) && known(fd, path, &inode) && fault(C_READ, path);
}
ssize_t read(int fd, void *data, size_t n) { return cannot_read(fd) ? -1 : syscall(SYS_read, fd, data, n); }
ssize_t pread(int fd, void *data, size_t n, off_t at) { return cannot_read(fd) ? -1 : syscall(SYS_pread64, fd, data, n, at); }
ssize_t pread64(int fd, void *data, size_t n, off64_t at) { return cannot_read(fd) ? -1 : syscall(SYS_pread64, fd, data, n, at); }
static int cannot_look(const char *path) {
    char full[PATH_MAX];
    return armed(C_STAT) && resolve(AT_FDCWD, path, full) && fault(C_STAT, full);
}
#define NEXT(name) static __typeof__(&name) next; if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
int stat(const char *path, struct stat *to) { NEXT(stat); return cannot_look(path) ? -1 : next(path, to); }
int stat64(const char *path, struct stat64 *to) { NEXT(stat64); return cannot_look(path) ? -1 : next(path, to); }
int lstat(const char *path, struct stat *to) { NEXT(lstat); return cannot_look(path) ? -1 : next(path, to); }
int lstat64(const char *path, struct stat64 *to) { NEXT(lstat64); return cannot_look(path) ? -1 : next(path, to); }
int access(const char *path, int mode) { NEXT(access); return cannot_look(path) ? -1 : next(path, mode); }

/* ---- write ---- */

/* What "-shm" holds is changed in memory; a copy of it stands in the log beside some syncs of the write-ahead log. */
static void record_index(const char *path) {
    static __thread int fd = -1;
    static __thread uint64_t of;
    static __thread unsigned turn;
    static char data[1 << 15];
    char index[PATH_MAX];
    size_t n = strlen(path);
    if (log_fd < 0 || n < 4 || strcmp(path + n - 4, "-wal") || (turn++ > 20 && turn % 16)) return;
    snprintf(index, sizeof index, "%.*s-shm", (int)(n - 4), path);
    uint64_t inode = inode_at(index);
    if (!inode) return;
    /* Never closed: that would drop this process's locks on it. */
    if (fd < 0 || of != inode) { fd = raw_open(index, O_RDONLY | O_CLOEXEC); of = inode; }
    lock();
    ssize_t got = syscall(SYS_pread64, fd, data, sizeof data, 0);
    if (got > 0) record(INDEX, inode, 0, 0, index, data, (size_t)got);
    unlock();
}

static ssize_t written(int fd, const struct iovec *parts, int count, off64_t at, int positioned) {
    char path[PATH_MAX];
    uint64_t inode;
    if (!known(fd, path, &inode))
        return positioned ? syscall(SYS_pwritev, fd, parts, count, at, 0) : syscall(SYS_writev, fd, parts, count);
    size_t size = 0, whole;
    for (int part = 0; part < count; part++) size += parts[part].iov_len;
    whole = size;
    int what = fault(C_WRITE, path);
    if (what == FAIL) return -1;
    if (what == SHORT && size > 1) size /= 2;
    char *data = malloc(size ? size : 1);
    if (!data) return -1;
    for (size_t done = 0, part = 0, n; done < size; done += n, part++) {
        n = parts[part].iov_len < size - done ? parts[part].iov_len : size - done;
        memcpy(data + done, parts[part].iov_base, n);
    }
    lock();
    ssize_t done = positioned ? syscall(SYS_pwrite64, fd, data, size, at) : syscall(SYS_write, fd, data, size);
    if (done > 0) {
        if (!positioned) at = syscall(SYS_lseek, fd, 0, SEEK_CUR) - done;
        record(WRITE, inode, (uint64_t)at, whole, path, data, (size_t)done);
    }
    unlock();
    int kept = errno;
    free(data);
    errno = kept;
    return done;
}
ssize_t write(int fd, const void *data, size_t n) {
    struct iovec part = {(void *)data, n};
    return control ? written(fd, &part, 1, 0, 0) : syscall(SYS_write, fd, data, n);
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    struct iovec part = {(void *)data, n};
    return control ? written(fd, &part, 1, at, 1) : syscall(SYS_pwrite64, fd, data, n, at);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) { return pwrite(fd, data, n, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) {
    return control ? written(fd, parts, count, 0, 0) : syscall(SYS_writev, fd, parts, count);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return written(fd, parts, count, at, 1); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { return written(fd, parts, count, at, 1); }

static int resized(int fd, off64_t size) {
    char path[PATH_MAX];
    uint64_t inode;
    if (!known(fd, path, &inode)) return (int)syscall(SYS_ftruncate, fd, size);
    if (fault(C_RESIZE, path)) return -1;
    lock();
    int result = (int)syscall(SYS_ftruncate, fd, size);
    if (!result) record(RESIZE, inode, (uint64_t)size, 0, path, "", 0);
    unlock();
    return result;
}
int ftruncate(int fd, off_t size) { return resized(fd, size); }
int ftruncate64(int fd, off64_t size) { return resized(fd, size); }
int truncate(const char *path, off_t size) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    int result = resized(fd, size), kept = errno;
    close(fd);
    errno = kept;
    return result;
}
int truncate64(const char *path, off64_t size) { return truncate(path, size); }

static int allocated(int fd, int mode, off64_t at, off64_t n) {
    char path[PATH_MAX];
    uint64_t inode;
    struct stat status;
    if (!known(fd, path, &inode)) return (int)syscall(SYS_fallocate, fd, mode, at, n);
    if (mode & ~FALLOC_FL_KEEP_SIZE) { errno = EOPNOTSUPP; return -1; }
    if (fault(C_WRITE | C_RESIZE, path)) return -1;
    lock();
    int result = (int)syscall(SYS_fallocate, fd, mode, at, n);
    if (!result && !mode && !syscall(SYS_fstat, fd, &status)) record(RESIZE, inode, (uint64_t)status.st_size, 0, path, "", 0);
    unlock();
    return result;
}
int fallocate(int fd, int mode, off_t at, off_t n) { return allocated(fd, mode, at, n); }
int fallocate64(int fd, int mode, off64_t at, off64_t n) { return allocated(fd, mode, at, n); }
int posix_fallocate(int fd, off_t at, off_t n) { return allocated(fd, 0, at, n) ? errno : 0; }
int posix_fallocate64(int fd, off64_t at, off64_t n) { return allocated(fd, 0, at, n) ? errno : 0; }

/* Nothing that the stores use may write past the recorder: these copy between files without their data passing here. */
static int unrecordable(int fd, const char *name) {
    char path[PATH_MAX];
    uint64_t inode;
    if (!known(fd, path, &inode)) return 0;
    lock();
    record(UNKNOWN, inode, 0, 0, path, name, strlen(name));
    unlock();
    errno = EINVAL;
    return 1;
}
ssize_t sendfile(int to, int from, off_t *at, size_t n) { return unrecordable(to, "sendfile") ? -1 : syscall(SYS_sendfile, to, from, at, n); }
ssize_t sendfile64(int to, int from, off64_t *at, size_t n) { return unrecordable(to, "sendfile") ? -1 : syscall(SYS_sendfile, to, from, at, n); }
ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *on, size_t n, unsigned flags) {
    return unrecordable(to, "copy_file_range") ? -1 : syscall(SYS_copy_file_range, from, at, to, on, n, flags);
}
int symlink(const char *target, const char *path) {
    char full[PATH_MAX];
    if (resolve(AT_FDCWD, path, full)) {
        lock();
        record(UNKNOWN, 0, 0, 0, full, "symlink", 7);
        unlock();
    }
    return (int)syscall(SYS_symlinkat, target, AT_FDCWD, path);
}

/* ---- sync ---- */

static int synced(int fd, long number) {
    char path[PATH_MAX];
    uint64_t inode;
    if (!known(fd, path, &inode)) return (int)syscall(number, fd);
    record_index(path);
    lock();
    uint64_t id = ++control->syncs;
    record(SYNC_BEGIN, inode, id, 0, path, "", 0);
    unlock();
    int what = fault(C_SYNC, path), result = what ? -1 : (int)syscall(number, fd), kept = errno;
    lock();
    struct event event = {.kind = SYNC_END, .inode = inode, .a = id, .b = what == DROP, .error = result ? kept : 0};
    put(&event, path + root_length, strlen(path) - root_length, "", 0);
    unlock();
    errno = kept;
    return result;
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }
/* sync_file_range and msync need no events: the first makes nothing durable (sync_file_range(2), "Warning"), and only
 * "-shm" is mapped. */

/* ---- names ---- */

static int renamed(int at, const char *from, int to_at, const char *to, unsigned flags) {
    char source[PATH_MAX], target[PATH_MAX];
    int is_known = resolve(at, from, source), there = resolve(to_at, to, target);
    if (!is_known && !there) return (int)syscall(SYS_renameat2, at, from, to_at, to, flags);
    if (flags & ~RENAME_NOREPLACE) { errno = EINVAL; return -1; }
    if (!is_known || !there) { errno = EXDEV; return -1; }
    if (fault(C_RENAME, target)) return -1;
    lock();
    uint64_t inode = inode_at(source);
    int result = (int)syscall(SYS_renameat2, at, from, to_at, to, flags);
    if (!result) record(RENAME, inode, 0, 0, source, target + root_length, strlen(target) - root_length);
    unlock();
    return result;
}
int rename(const char *from, const char *to) { return renamed(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int at, const char *from, int to_at, const char *to) { return renamed(at, from, to_at, to, 0); }
int renameat2(int at, const char *from, int to_at, const char *to, unsigned flags) { return renamed(at, from, to_at, to, flags); }

static int linked(int at, const char *from, int to_at, const char *to, int flags) {
    char source[PATH_MAX], target[PATH_MAX];
    if (!resolve(to_at, to, target)) return (int)syscall(SYS_linkat, at, from, to_at, to, flags);
    if (!resolve(at, from, source)) { errno = EXDEV; return -1; }
    if (fault(C_LINK, target)) return -1;
    lock();
    int result = (int)syscall(SYS_linkat, at, from, to_at, to, flags);
    if (!result) record(LINK, inode_at(target), 0, 0, source, target + root_length, strlen(target) - root_length);
    unlock();
    return result;
}
int link(const char *from, const char *to) { return linked(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int at, const char *from, int to_at, const char *to, int flags) { return linked(at, from, to_at, to, flags); }

static int unlinked(int at, const char *path, int flags) {
    char full[PATH_MAX];
    if (!resolve(at, path, full)) return (int)syscall(SYS_unlinkat, at, path, flags);
    if (fault(C_UNLINK, full)) return -1;
    lock();
    uint64_t inode = inode_at(full);
    int result = (int)syscall(SYS_unlinkat, at, path, flags);
    if (!result) record(flags & AT_REMOVEDIR ? RMDIR : UNLINK, inode, 0, 0, full, "", 0);
    unlock();
    return result;
}
int unlink(const char *path) { return unlinked(AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return unlinked(at, path, flags); }
int rmdir(const char *path) { return unlinked(AT_FDCWD, path, AT_REMOVEDIR); }

static int made(int at, const char *path, mode_t mode) {
    char full[PATH_MAX];
    if (!resolve(at, path, full)) return (int)syscall(SYS_mkdirat, at, path, mode);
    if (fault(C_MKDIR, full)) return -1;
    lock();
    int result = (int)syscall(SYS_mkdirat, at, path, mode);
    if (!result) record(MKDIR, inode_at(full), 0, 0, full, "", 0);
    unlock();
    return result;
}
int mkdir(const char *path, mode_t mode) { return made(AT_FDCWD, path, mode); }
int mkdirat(int at, const char *path, mode_t mode) { return made(at, path, mode); }
