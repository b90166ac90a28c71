#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "audio/sink.h"
#include "engine/base/error.h"
#include "tests/support/scratch.h"
#include "tests/support/vibe_test.h"

struct fixture {
    struct vibe_scratch scratch;
    struct vibe_sink *sink;
    struct vibe_error err;
};

/* Each test works inside its own folder. */
static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    signal(SIGPIPE, SIG_IGN);
    *state = f;
    return vibe_scratch_enter(&f->scratch);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    int rc;

    vibe_sink_free(f->sink);
    rc = vibe_scratch_leave(&f->scratch);
    free(f);
    return rc;
}

static void write_text(const char *path, const char *text)
{
    vibe_file_write(path, text, strlen(text));
}

static void assert_content(const char *path, const char *want)
{
    char got[64];

    got[vibe_file_read(path, got, sizeof(got))] = '\0';
    assert_string_equal(got, want);
}

static void assert_refused(struct fixture *f, const char *path,
                           const char *message)
{
    bool is_stream;

    assert_int_equal(vibe_sink_check(&is_stream, path, &f->err), VIBE_E_IO);
    assert_string_equal(f->err.msg, message);
    memset(&f->err, 0, sizeof(f->err));
    f->sink = (struct vibe_sink *)f; /* anything but NULL */
    assert_int_equal(vibe_sink_open(&f->sink, path, &f->err), VIBE_E_IO);
    assert_string_equal(f->err.msg, message);
    assert_null(f->sink);
}

static void open_sink(struct fixture *f, const char *path)
{
    assert_int_equal(vibe_sink_open(&f->sink, path, &f->err), VIBE_OK);
}

static void put(struct fixture *f, const char *text)
{
    assert_int_equal(vibe_sink_write(f->sink, text, strlen(text)),
                     strlen(text));
}

static void open_refuses_a_missing_folder(void **state)
{
    assert_refused(*state, "no/such/out.wav",
                   "no/such/out.wav: No such directory");
}

static void open_refuses_a_folder(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(mkdir("out.wav", 0700), 0);

    assert_refused(f, "out.wav", "out.wav: is a directory");
    assert_refused(f, "out.wav/", "'out.wav/': is not a file name");
    assert_refused(f, "", "'': is not a file name");
}

static void open_refuses_a_file_as_folder(void **state)
{
    write_text("file", "");

    assert_refused(*state, "file/out.wav", "file/out.wav: Not a directory");
}

static void open_refuses_a_folder_it_may_not_write(void **state)
{
    struct fixture *f = *state;
    bool is_root = geteuid() == 0;

    write_text("out.wav", "old"); /* its own permissions do not matter */
    assert_int_equal(chmod(".", 0555), 0);
    if (is_root)
        assert_int_equal(seteuid(65534), 0);
    assert_refused(f, "out.wav", "out.wav: Permission denied");
    assert_refused(f, "new.wav", "new.wav: Permission denied");
    if (is_root)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(chmod(".", 0700), 0);
}

static void open_refuses_a_folder_under_the_part_name(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(mkdir("out.part.wav", 0700), 0);

    assert_int_equal(vibe_sink_open(&f->sink, "out.wav", &f->err), VIBE_E_IO);
    assert_string_equal(f->err.msg, "out.part.wav: Is a directory");
}

static void commit_that_cannot_rename_leaves_nothing(void **state)
{
    struct fixture *f = *state;

    open_sink(f, "out.wav");
    put(f, "new");
    assert_int_equal(mkdir("out.wav", 0700), 0); /* in the meantime */

    assert_int_equal(vibe_sink_commit(f->sink, &f->err), VIBE_E_IO);
    assert_string_equal(f->err.msg, "out.wav: Is a directory");
    assert_false(vibe_file_exists("out.part.wav"));
}

static void errors_latch(void **state)
{
    struct fixture *f = *state;

    open_sink(f, "/dev/full");
    assert_int_equal(vibe_sink_status(f->sink, &f->err), VIBE_OK);

    assert_int_equal(vibe_sink_write(f->sink, "x", 1), 0);
    assert_int_equal(vibe_sink_errno(f->sink), ENOSPC);
    assert_int_equal(vibe_sink_status(f->sink, &f->err), VIBE_E_IO);
    assert_string_equal(f->err.msg, "/dev/full: No space left on device");
    assert_int_equal(vibe_sink_commit(f->sink, NULL), VIBE_E_IO);
}

static void a_reader_that_left_is_named(void **state)
{
    struct fixture *f = *state;
    int ends[2];
    char path[32];

    assert_int_equal(pipe(ends), 0);
    snprintf(path, sizeof(path), "/dev/fd/%d", ends[1]);
    open_sink(f, path);
    close(ends[0]);

    assert_int_equal(vibe_sink_write(f->sink, "x", 1), 0);
    assert_int_equal(vibe_sink_errno(f->sink), EPIPE);
    close(ends[1]);
}

static void a_file_appears_only_by_commit(void **state)
{
    struct fixture *f = *state;

    write_text("out.wav", "old");
    open_sink(f, "out.wav");
    put(f, "new");
    assert_string_equal(vibe_sink_part(f->sink), "out.part.wav");
    assert_content("out.wav", "old");
    assert_content("out.part.wav", "new");

    assert_int_equal(vibe_sink_commit(f->sink, &f->err), VIBE_OK);
    assert_content("out.wav", "new");
    assert_false(vibe_file_exists("out.part.wav"));
}

static void abort_leaves_what_was_there(void **state)
{
    struct fixture *f = *state;

    write_text("out.wav", "old");
    open_sink(f, "out.wav");
    put(f, "new");
    vibe_sink_abort(f->sink);
    vibe_sink_abort(f->sink); /* once more does no harm */

    assert_content("out.wav", "old");
    assert_false(vibe_file_exists("out.part.wav"));
}

static void keep_leaves_the_part(void **state)
{
    struct fixture *f = *state;

    open_sink(f, "out.wav");
    put(f, "half");
    assert_int_equal(vibe_sink_keep(f->sink, &f->err), VIBE_OK);
    vibe_sink_free(f->sink);
    f->sink = NULL;

    assert_content("out.part.wav", "half");
    assert_false(vibe_file_exists("out.wav"));
}

static void an_old_part_is_replaced_and_not_written_through(void **state)
{
    struct fixture *f = *state;

    write_text("precious", "mine");
    assert_int_equal(symlink("precious", "out.part.wav"), 0);
    open_sink(f, "out.wav");
    put(f, "new");
    assert_int_equal(vibe_sink_commit(f->sink, &f->err), VIBE_OK);

    assert_content("precious", "mine");
    assert_content("out.wav", "new");
}

static void a_part_that_is_being_written_is_left_alone(void **state)
{
    struct fixture *f = *state;
    struct vibe_sink *second = NULL;

    open_sink(f, "out.wav");
    vibe_sink_write(f->sink, "first", 5);
    assert_int_equal(vibe_sink_open(&second, "out.wav", &f->err), VIBE_E_IO);
    assert_null(second);
    assert_string_equal(f->err.msg,
                        "out.part.wav: is being written by another run");
    assert_int_equal(vibe_sink_commit(f->sink, &f->err), VIBE_OK);

    assert_content("out.wav", "first");
}

static void part_goes_before_the_extension_of_the_last_component(void **state)
{
    struct fixture *f = *state;
    static const char *const names[][2] = {
        {"out.wav", "out.part.wav"},     {"out", "out.part"},
        {".hidden", ".hidden.part"},     {"a.b.flac", "a.b.part.flac"},
        {"dir.d/out", "dir.d/out.part"}, {"dir.d/x.y", "dir.d/x.part.y"},
        {"./out.wav", "./out.part.wav"},
    };

    assert_int_equal(mkdir("dir.d", 0700), 0);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char *part;

        open_sink(f, names[i][0]);
        assert_string_equal(vibe_sink_part(f->sink), names[i][1]);
        part = vibe_sink_part_of(names[i][0]);
        assert_string_equal(part, names[i][1]);
        free(part);
        vibe_sink_free(f->sink);
        f->sink = NULL;
    }
}

static void a_link_leads_to_the_file_that_is_replaced(void **state)
{
    struct fixture *f = *state;
    struct stat st;

    assert_int_equal(mkdir("dir", 0700), 0);
    write_text("dir/real.wav", "old");
    assert_int_equal(symlink("dir/real.wav", "latest.wav"), 0);
    open_sink(f, "latest.wav");
    assert_true(vibe_file_exists("dir/real.part.wav"));
    put(f, "new");
    assert_int_equal(vibe_sink_commit(f->sink, &f->err), VIBE_OK);

    assert_content("dir/real.wav", "new");
    assert_int_equal(lstat("latest.wav", &st), 0);
    assert_true(S_ISLNK(st.st_mode));
}

static void a_device_is_written_and_not_replaced(void **state)
{
    struct fixture *f = *state;
    struct stat st;

    open_sink(f, "/dev/null");
    assert_true(vibe_sink_is_stream(f->sink));
    assert_null(vibe_sink_part(f->sink));
    put(f, "gone");
    assert_int_equal(vibe_sink_commit(f->sink, &f->err), VIBE_OK);

    assert_int_equal(stat("/dev/null", &st), 0);
    assert_true(S_ISCHR(st.st_mode));
}

static void seek_overwrites_and_the_length_stays(void **state)
{
    struct fixture *f = *state;

    open_sink(f, "out");
    put(f, "0123456789");
    vibe_sink_seek(f->sink, 2);
    put(f, "ab");
    assert_int_equal(vibe_sink_position(f->sink), 4);
    assert_int_equal(vibe_sink_length(f->sink), 10);
    assert_int_equal(vibe_sink_commit(f->sink, &f->err), VIBE_OK);

    assert_content("out", "01ab456789");
}

/* Open "-" with standard output going to fd for that moment. */
static void open_stdout(struct fixture *f, int fd)
{
    int saved = vibe_stdout_redirect(fd);
    int rc = vibe_sink_open(&f->sink, "-", &f->err);

    vibe_stdout_restore(saved);
    assert_int_equal(rc, VIBE_OK);
}

static void stdout_in_a_file_is_patched_behind_what_was_there(void **state)
{
    struct fixture *f = *state;
    int fd = open("all", O_RDWR | O_CREAT, 0600);

    assert_int_equal(write(fd, "before ", 7), 7);
    open_stdout(f, fd);
    put(f, "????data");
    vibe_sink_patch(f->sink, 0, "head", 4);
    assert_int_equal(vibe_sink_commit(f->sink, &f->err), VIBE_OK);

    assert_int_equal(write(fd, " after", 6), 6); /* the offset is shared */
    close(fd);
    assert_content("all", "before headdata after");
}

static void stdout_that_appends_is_not_patched(void **state)
{
    struct fixture *f = *state;
    int fd = open("all", O_WRONLY | O_CREAT | O_APPEND, 0600);

    open_stdout(f, fd);
    put(f, "????data");
    vibe_sink_patch(f->sink, 0, "head", 4);
    close(fd);

    assert_content("all", "????data");
}

static void a_terminal_is_refused(void **state)
{
    struct fixture *f = *state;
    int pty = posix_openpt(O_RDWR | O_NOCTTY);
    bool is_stream;
    int tty;
    int saved;
    int rc;

    if (pty < 0 || grantpt(pty) || unlockpt(pty) || !ptsname(pty) ||
        access(ptsname(pty), R_OK | W_OK))
        skip(); /* a bare root without devpts */
    tty = open(ptsname(pty), O_RDWR | O_NOCTTY);
    assert_true(tty >= 0);
    saved = vibe_stdout_redirect(tty);
    rc = vibe_sink_check(&is_stream, "-", &f->err);
    vibe_stdout_restore(saved);
    close(tty);
    close(pty);

    assert_int_equal(rc, VIBE_E_UNSUPPORTED);
    assert_string_equal(f->err.msg, "refusing to write audio to a terminal; "
                                    "use -o FILE");
}

static void a_closed_stdout_is_an_error(void **state)
{
    struct fixture *f = *state;
    bool is_stream;
    int saved = vibe_stdout_redirect(STDERR_FILENO);
    int rc;

    close(STDOUT_FILENO);
    rc = vibe_sink_check(&is_stream, "-", &f->err);
    vibe_stdout_restore(saved);

    assert_int_equal(rc, VIBE_E_IO);
    assert_string_equal(f->err.msg, "standard output: Bad file descriptor");
}

/* Read everything from fd, slowly at first; exit 0 if it was n bytes. */
static void read_slowly(int fd, size_t n)
{
    char buffer[65536];
    size_t total = 0;
    ssize_t got;

    usleep(50000);
    while ((got = read(fd, buffer, sizeof(buffer))) > 0)
        total += (size_t)got;
    _exit(total == n ? 0 : 1);
}

static void a_non_blocking_pipe_is_waited_for(void **state)
{
    struct fixture *f = *state;
    static const char data[300000]; /* a pipe holds 65,536 */
    int ends[2];
    int status;
    pid_t child;

    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(ends[1]);
        read_slowly(ends[0], sizeof(data));
    }
    close(ends[0]);
    open_stdout(f, ends[1]);
    close(ends[1]);
    assert_int_equal(vibe_sink_write(f->sink, data, sizeof(data)),
                     sizeof(data));
    assert_int_equal(vibe_sink_commit(f->sink, &f->err), VIBE_OK);

    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(open_refuses_a_missing_folder),
    VIBE_TEST(open_refuses_a_folder),
    VIBE_TEST(open_refuses_a_file_as_folder),
    VIBE_TEST(open_refuses_a_folder_it_may_not_write),
    VIBE_TEST(open_refuses_a_folder_under_the_part_name),
    VIBE_TEST(commit_that_cannot_rename_leaves_nothing),
    VIBE_TEST(errors_latch),
    VIBE_TEST(a_reader_that_left_is_named),
    VIBE_TEST(a_terminal_is_refused),
    VIBE_TEST(a_closed_stdout_is_an_error),
    VIBE_TEST(a_file_appears_only_by_commit),
    VIBE_TEST(abort_leaves_what_was_there),
    VIBE_TEST(keep_leaves_the_part),
    VIBE_TEST(an_old_part_is_replaced_and_not_written_through),
    VIBE_TEST(a_part_that_is_being_written_is_left_alone),
    VIBE_TEST(part_goes_before_the_extension_of_the_last_component),
    VIBE_TEST(a_link_leads_to_the_file_that_is_replaced),
    VIBE_TEST(a_device_is_written_and_not_replaced),
    VIBE_TEST(seek_overwrites_and_the_length_stays),
    VIBE_TEST(stdout_in_a_file_is_patched_behind_what_was_there),
    VIBE_TEST(stdout_that_appends_is_not_patched),
    VIBE_TEST(a_non_blocking_pipe_is_waited_for),
};

VIBE_TEST_MAIN(tests)
