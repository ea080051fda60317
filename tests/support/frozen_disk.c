/* A disk that freezes, for LD_PRELOAD: while a file is there, calls on a folder wait.
 *
 * FROZEN_FOLDER names the folder, FROZEN_WHILE the file that freezes it, which lies elsewhere. While FROZEN_WHILE
 * exists, every call below waits; while FROZEN_WHILE with "-writes" behind it exists, only those that write (as under
 * fsfreeze(8)). Waiting is uninterruptible, like that of a process in state D: signals end it only by ending the process.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MOST 65536

static char folder[PATH_MAX], all[PATH_MAX], writes[PATH_MAX + 8];
static size_t length;
static unsigned char ours[MOST]; /* descriptors of files in the folder */

__attribute__((constructor)) static void begin(void)
{
	const char *below = getenv("FROZEN_FOLDER"), *file = getenv("FROZEN_WHILE");

	if (!below || !file)
		return;
	snprintf(folder, sizeof folder, "%s", below);
	snprintf(all, sizeof all, "%s", file);
	snprintf(writes, sizeof writes, "%s-writes", file);
	length = strlen(folder);
}

static int is_there(const char *path)
{
	return syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
}

static void wait_while_frozen(int is_write)
{
	while (is_there(all) || (is_write && is_there(writes))) {
		struct timespec pause = {0, 10 * 1000 * 1000};
		syscall(SYS_nanosleep, &pause, NULL);
	}
}

static int is_below(const char *path)
{
	return length && path && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static int on_path(const char *path, int is_write)
{
	int found = is_below(path);

	if (found)
		wait_while_frozen(is_write);
	return found;
}

static void on_file(int file, int is_write)
{
	if (file >= 0 && file < MOST && ours[file])
		wait_while_frozen(is_write);
}

static int opened(int file, int is_ours)
{
	if (file >= 0 && file < MOST)
		ours[file] = is_ours;
	return file;
}

#define REAL(name) \
	static __typeof__(name) *real; \
	if (!real) \
		real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define MODE \
	mode_t mode = 0; \
	if (flags & (O_CREAT | __O_TMPFILE)) { \
		va_list more; \
		va_start(more, flags); \
		mode = va_arg(more, mode_t); \
		va_end(more); \
	}

#define OPEN(name) \
	int name(const char *path, int flags, ...) \
	{ \
		MODE \
		REAL(name); \
		int found = on_path(path, flags & (O_CREAT | O_TRUNC)); \
		return opened(real(path, flags, mode), found); \
	}
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
	int name(int at, const char *path, int flags, ...) \
	{ \
		MODE \
		REAL(name); \
		int found = on_path(path, flags & (O_CREAT | O_TRUNC)); \
		return opened(real(at, path, flags, mode), found); \
	}
OPENAT(openat)
OPENAT(openat64)

int close(int file)
{
	REAL(close);
	opened(file, 0);
	return real(file);
}

int dup(int file)
{
	REAL(dup);
	return opened(real(file), file >= 0 && file < MOST && ours[file]);
}

/* Calls on a descriptor */
#define ON_FILE(type, name, is_write, parameters, arguments) \
	type name parameters \
	{ \
		REAL(name); \
		on_file(file, is_write); \
		return real arguments; \
	}
ON_FILE(ssize_t, read, 0, (int file, void *to, size_t size), (file, to, size))
ON_FILE(ssize_t, pread, 0, (int file, void *to, size_t size, off_t at), (file, to, size, at))
ON_FILE(ssize_t, pread64, 0, (int file, void *to, size_t size, off64_t at), (file, to, size, at))
ON_FILE(ssize_t, write, 1, (int file, const void *from, size_t size), (file, from, size))
ON_FILE(ssize_t, pwrite, 1, (int file, const void *from, size_t size, off_t at), (file, from, size, at))
ON_FILE(ssize_t, pwrite64, 1, (int file, const void *from, size_t size, off64_t at), (file, from, size, at))
ON_FILE(ssize_t, writev, 1, (int file, const struct iovec *from, int count), (file, from, count))
ON_FILE(int, fsync, 1, (int file), (file))
ON_FILE(int, fdatasync, 1, (int file), (file))
ON_FILE(int, ftruncate, 1, (int file, off_t size), (file, size))
ON_FILE(int, ftruncate64, 1, (int file, off64_t size), (file, size))
ON_FILE(int, fchmod, 1, (int file, mode_t mode), (file, mode))
ON_FILE(int, fstat, 0, (int file, struct stat *found), (file, found))
ON_FILE(int, fstat64, 0, (int file, struct stat64 *found), (file, found))

/* Calls on a path */
#define ON_PATH(type, name, is_write, parameters, arguments) \
	type name parameters \
	{ \
		REAL(name); \
		on_path(path, is_write); \
		return real arguments; \
	}
ON_PATH(int, stat, 0, (const char *path, struct stat *found), (path, found))
ON_PATH(int, stat64, 0, (const char *path, struct stat64 *found), (path, found))
ON_PATH(int, lstat, 0, (const char *path, struct stat *found), (path, found))
ON_PATH(int, lstat64, 0, (const char *path, struct stat64 *found), (path, found))
ON_PATH(int, fstatat, 0, (int at, const char *path, struct stat *found, int flags), (at, path, found, flags))
ON_PATH(int, fstatat64, 0, (int at, const char *path, struct stat64 *found, int flags), (at, path, found, flags))
ON_PATH(int, access, 0, (const char *path, int mode), (path, mode))
ON_PATH(int, faccessat, 0, (int at, const char *path, int mode, int flags), (at, path, mode, flags))
ON_PATH(int, statvfs, 0, (const char *path, struct statvfs *found), (path, found))
ON_PATH(int, statvfs64, 0, (const char *path, struct statvfs64 *found), (path, found))
ON_PATH(DIR *, opendir, 0, (const char *path), (path))
ON_PATH(int, unlink, 1, (const char *path), (path))
ON_PATH(int, unlinkat, 1, (int at, const char *path, int flags), (at, path, flags))
ON_PATH(int, rename, 1, (const char *path, const char *to), (path, to))
ON_PATH(int, renameat, 1, (int at, const char *path, int at2, const char *to), (at, path, at2, to))
ON_PATH(int, link, 1, (const char *path, const char *to), (path, to))
ON_PATH(int, linkat, 1, (int at, const char *path, int at2, const char *to, int flags), (at, path, at2, to, flags))
ON_PATH(int, mkdir, 1, (const char *path, mode_t mode), (path, mode))
ON_PATH(int, rmdir, 1, (const char *path), (path))
ON_PATH(int, chmod, 1, (const char *path, mode_t mode), (path, mode))
