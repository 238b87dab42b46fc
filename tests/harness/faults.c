/* A bad disk, for one process: loaded with LD_PRELOAD, it makes calls on some files fail or take long, and logs them.
 *
 * BENCH_FAULTS names a file of rules, read again before each call on a file:
 *
 *     CALL WHAT FRAGMENT [COUNT]
 *
 * CALL is write, fsync (or fdatasync) or ftruncate; WHAT the name of an errno, or delay:MILLISECONDS; FRAGMENT is
 * looked for in the file's path, with a $ at its end at the end of the path; after COUNT times the rule is used up,
 * until the file of rules is replaced. A call that fails is not made.
 *
 * BENCH_FAULTS_LOG names a file to which each call on a file is appended whose path contains BENCH_FAULTS_WATCH, and
 * each 250 that says what a message is queued as, before it is sent. A record is a line of fields with tabs between
 * (call, path, offset, result, errno, number of bytes), followed by the bytes that were written. A sync has two
 * records, so that it is known what came between: "sync-begin" and "sync".
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define RULES 16
#define NO_OFFSET (-1L)
#define REAL(name) ((__typeof__(&name))real(#name))

static const char REPLY[] = "250 2.0.0 queued as ";

struct rule {
    char call[16], what[32], fragment[256];
    long left; /* < 0: without end */
};

static const struct { const char *name; int number; } ERRORS[] = {
    {"EIO", EIO}, {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"EROFS", EROFS},
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct rule rules[RULES];
static int rule_count;
static struct stat rules_file;

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

/* The path of a regular file or folder; 0 when the descriptor is something else. */
static int path_of(int fd, char *path, size_t size)
{
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length <= 0 || path[0] != '/')
        return 0;
    path[length] = 0;
    return strncmp(path, "/dev/", 5) != 0 && strncmp(path, "/proc/", 6) != 0;
}

static int matches(const char *path, const char *fragment)
{
    size_t length = strlen(fragment), whole = strlen(path);
    if (length == 0 || fragment[length - 1] != '$')
        return strstr(path, fragment) != NULL;
    return whole >= length - 1 && strncmp(path + whole - (length - 1), fragment, length - 1) == 0;
}

/* Reads the rules again when their file was replaced; what is left of their counts begins anew then. */
static void read_rules(const char *file)
{
    struct stat status;
    if (stat(file, &status) != 0) {
        rule_count = 0;
        return;
    }
    if (status.st_ino == rules_file.st_ino && status.st_mtim.tv_sec == rules_file.st_mtim.tv_sec &&
        status.st_mtim.tv_nsec == rules_file.st_mtim.tv_nsec)
        return;
    FILE *stream = fopen(file, "re");
    if (stream == NULL)
        return;
    char line[512];
    rule_count = 0;
    while (rule_count < RULES && fgets(line, sizeof line, stream) != NULL) {
        struct rule *rule = &rules[rule_count];
        rule->left = -1;
        if (sscanf(line, "%15s %31s %255s %ld", rule->call, rule->what, rule->fragment, &rule->left) >= 3)
            rule_count++;
    }
    fclose(stream);
    rules_file = status;
}

/* The errno that a call on a file has to fail with, 0 for none; waits first when a rule says so. */
static int fault(const char *call, const char *path)
{
    const char *file = getenv("BENCH_FAULTS");
    int failure = 0;
    long delay = 0;
    if (file == NULL)
        return 0;
    pthread_mutex_lock(&lock);
    read_rules(file);
    for (int n = 0; n < rule_count && failure == 0; n++) {
        struct rule *rule = &rules[n];
        if (rule->left == 0 || strcmp(rule->call, call) != 0 || !matches(path, rule->fragment))
            continue;
        if (rule->left > 0)
            rule->left--;
        if (strncmp(rule->what, "delay:", 6) == 0)
            delay += atol(rule->what + 6);
        for (size_t e = 0; e < sizeof ERRORS / sizeof *ERRORS; e++)
            if (strcmp(rule->what, ERRORS[e].name) == 0)
                failure = ERRORS[e].number;
    }
    pthread_mutex_unlock(&lock);
    if (delay > 0) {
        struct timespec pause = {delay / 1000, delay % 1000 * 1000000};
        nanosleep(&pause, NULL);
    }
    return failure;
}

static int is_watched(const char *path)
{
    const char *watched = getenv("BENCH_FAULTS_WATCH");
    return watched != NULL && getenv("BENCH_FAULTS_LOG") != NULL && matches(path, watched);
}

/* Appends a record, in one piece; keeps errno as it is. The lock is for who sends SIGKILL, which would cut one. */
static void record(const char *call, const char *path, long offset, long result, const struct iovec *data, int parts)
{
    int before = errno, count = 1;
    char line[4352];
    struct iovec pieces[65];
    long left = result > 0 ? result : 0;
    if (parts > 64)
        abort();
    for (int n = 0; n < parts && left > 0; n++) {
        pieces[count].iov_base = data[n].iov_base;
        pieces[count].iov_len = (long)data[n].iov_len < left ? data[n].iov_len : (size_t)left;
        left -= (long)pieces[count++].iov_len;
    }
    pieces[0].iov_base = line;
    pieces[0].iov_len = (size_t)snprintf(line, sizeof line, "%s\t%s\t%ld\t%ld\t%d\t%ld\n", call, path, offset, result,
                                         result < 0 ? before : 0, parts > 0 && result > 0 ? result : 0L);
    int log = open(getenv("BENCH_FAULTS_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0 || flock(log, LOCK_EX) < 0 || syscall(SYS_writev, log, pieces, count) < 0)
        abort(); /* a log with holes is worse than none */
    close(log);
    errno = before;
}

/* What all writes share. `MADE` makes the real call. */
#define WRITE(fd, parts, count, offset, made)                                                                         \
    char path[4096];                                                                                                  \
    if (!path_of(fd, path, sizeof path))                                                                              \
        return made;                                                                                                  \
    int failure = fault("write", path);                                                                               \
    ssize_t result = failure ? (errno = failure, -1) : made;                                                          \
    if (is_watched(path))                                                                                             \
        record("write", path, offset, (long)result, parts, count);                                                    \
    return result

ssize_t write(int fd, const void *bytes, size_t size)
{
    struct iovec part = {(void *)bytes, size};
    WRITE(fd, &part, 1, NO_OFFSET, REAL(write)(fd, bytes, size));
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    WRITE(fd, parts, count, NO_OFFSET, REAL(writev)(fd, parts, count));
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
    struct iovec part = {(void *)bytes, size};
    WRITE(fd, &part, 1, (long)offset, REAL(pwrite)(fd, bytes, size, offset));
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t offset)
{
    struct iovec part = {(void *)bytes, size};
    WRITE(fd, &part, 1, (long)offset, REAL(pwrite64)(fd, bytes, size, offset));
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    WRITE(fd, parts, count, (long)offset, REAL(pwritev)(fd, parts, count, offset));
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset)
{
    WRITE(fd, parts, count, (long)offset, REAL(pwritev64)(fd, parts, count, offset));
}

ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    WRITE(fd, parts, count, (long)offset, REAL(pwritev2)(fd, parts, count, offset, flags));
}

ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags)
{
    WRITE(fd, parts, count, (long)offset, REAL(pwritev64v2)(fd, parts, count, offset, flags));
}

static int synced(int fd, int (*call)(int))
{
    char path[4096];
    if (!path_of(fd, path, sizeof path))
        return call(fd);
    if (is_watched(path))
        record("sync-begin", path, NO_OFFSET, 0, NULL, 0);
    int failure = fault("fsync", path);
    int result = failure ? (errno = failure, -1) : call(fd);
    if (is_watched(path))
        record("sync", path, NO_OFFSET, result, NULL, 0);
    return result;
}

int fsync(int fd) { return synced(fd, REAL(fsync)); }

int fdatasync(int fd) { return synced(fd, REAL(fdatasync)); }

#define TRUNCATE(fd, size, made)                                                                                      \
    char path[4096];                                                                                                  \
    if (!path_of(fd, path, sizeof path))                                                                              \
        return made;                                                                                                  \
    int failure = fault("ftruncate", path);                                                                           \
    int result = failure ? (errno = failure, -1) : made;                                                              \
    if (is_watched(path))                                                                                             \
        record("ftruncate", path, (long)size, result, NULL, 0);                                                       \
    return result

int ftruncate(int fd, off_t size) { TRUNCATE(fd, size, REAL(ftruncate)(fd, size)); }

int ftruncate64(int fd, off64_t size) { TRUNCATE(fd, size, REAL(ftruncate64)(fd, size)); }

int unlink(const char *path)
{
    int result = REAL(unlink)(path);
    if (is_watched(path))
        record("unlink", path, NO_OFFSET, result, NULL, 0);
    return result;
}

static void replied(const void *bytes, size_t size)
{
    if (getenv("BENCH_FAULTS_LOG") == NULL || size < sizeof REPLY || memcmp(bytes, REPLY, sizeof REPLY - 1) != 0)
        return;
    struct iovec part = {(void *)bytes, size};
    record("reply", "-", NO_OFFSET, (long)size, &part, 1);
}

ssize_t send(int fd, const void *bytes, size_t size, int flags)
{
    replied(bytes, size);
    return REAL(send)(fd, bytes, size, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    if (message->msg_iovlen > 0)
        replied(message->msg_iov[0].iov_base, message->msg_iov[0].iov_len);
    return REAL(sendmsg)(fd, message, flags);
}
