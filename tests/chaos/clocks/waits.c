/* Waits until a moment, for processes whose clocks libfaketime changes. Loaded before it.
 *
 * Python waits for locks with sem_clockwait, sleeps with clock_nanosleep(TIMER_ABSTIME), and waits for its interpreter with
 * pthread_cond_timedwait, all by the monotonic clock. libfaketime does not know the first, answers the second with EINVAL when
 * that clock is not to change, and is wrong about the third after a step: a wait of a second then lasts for ten minutes.
 * Here each wait lasts as long as is left of it by the clock as its thread last read it: Python has just done so, to tell until
 * when it waits. A clock that steps back in between would make a millisecond last for ten minutes; no kernel does that. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BILLION 1000000000L

static long long nanoseconds(const struct timespec *moment) { return (long long)moment->tv_sec * BILLION + moment->tv_nsec; }

static struct timespec moment_of(long long nanoseconds)
{
    struct timespec moment = {nanoseconds / BILLION, nanoseconds % BILLION};
    return moment;
}

static __thread struct timespec last_read[2]; /* by CLOCK_REALTIME and CLOCK_MONOTONIC, which are 0 and 1 */

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*faked)(clockid_t, struct timespec *);
    if (!faked)
        faked = dlsym(RTLD_NEXT, "clock_gettime");
    int answer = faked(clock, now);
    if (answer == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC))
        last_read[clock] = *now;
    return answer;
}

/* Return how long it is until the moment by the clock as this thread last read it; 0 when that has passed. */
static long long left_until(clockid_t clock, const struct timespec *until)
{
    struct timespec seen = last_read[clock];
    if (!seen.tv_sec)
        clock_gettime(clock, &seen);
    long long left = nanoseconds(until) - nanoseconds(&seen);
    return left > 0 ? left : 0;
}

/* Return the same moment by the kernel's clock. */
static struct timespec truly(clockid_t clock, const struct timespec *until)
{
    struct timespec now;
    syscall(SYS_clock_gettime, clock, &now);
    return moment_of(nanoseconds(&now) + left_until(clock, until));
}

static void *of_libc(const char *name, const char *version)
{
    static void *libc;
    if (!libc)
        libc = dlopen("libc.so.6", RTLD_LAZY);
    return version ? dlvsym(libc, name, version) : dlsym(libc, name);
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left)
{
    struct timespec lasts = *until;
    if (flags & TIMER_ABSTIME) {
        lasts = moment_of(left_until(clock, until));
        left = NULL;
    }
    return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &lasts, left) == 0 ? 0 : errno;
}

int sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *until)
{
    static int (*real)(sem_t *, clockid_t, const struct timespec *);
    if (!real)
        real = of_libc("sem_clockwait", NULL);
    struct timespec moment = truly(clock, until);
    return real(semaphore, clock, &moment);
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until)
{
    static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (!real)
#ifdef __x86_64__
        real = of_libc("pthread_cond_timedwait", "GLIBC_2.3.2"); /* the default would be an older one */
#else
        real = of_libc("pthread_cond_timedwait", NULL);
#endif
    /* The condition does not tell its clock. The machine has not run for 30 years. */
    struct timespec moment = truly(until->tv_sec < BILLION ? CLOCK_MONOTONIC : CLOCK_REALTIME, until);
    return real(condition, mutex, &moment);
}
