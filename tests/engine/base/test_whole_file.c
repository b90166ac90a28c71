#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/error.h"
#include "engine/base/whole_file.h"
#include "tests/support/scratch.h"
#include "tests/support/vibe_test.h"

struct fixture {
    struct vibe_scratch scratch;
    struct vibe_whole_file whole;
    struct vibe_error err;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f || vibe_scratch_enter(&f->scratch))
        return -1;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    int rc;

    vibe_whole_file_release(&f->whole);
    rc = vibe_scratch_leave(&f->scratch);
    free(f);
    return rc;
}

static void begin(struct fixture *f, const char *path)
{
    assert_int_equal(vibe_whole_file_init(&f->whole, path, &f->err), VIBE_OK);
    assert_int_equal(fputs("new", f->whole.file) >= 0, 1);
}

static void assert_holds(const char *path, const char *text)
{
    char got[16] = "";

    assert_int_equal(vibe_file_read(path, got, sizeof(got)), strlen(text));
    assert_string_equal(got, text);
}

static mode_t kind(const char *path)
{
    struct stat st;

    assert_int_equal(lstat(path, &st), 0);
    return st.st_mode & S_IFMT;
}

static void commit_replaces_what_was_there(void **state)
{
    struct fixture *f = *state;

    vibe_file_write("a", "old", 3);
    begin(f, "a");
    assert_holds("a", "old");

    assert_int_equal(vibe_whole_file_commit(&f->whole, &f->err), VIBE_OK);
    assert_null(f->whole.file);
    assert_holds("a", "new");
    assert_int_equal(vibe_file_count(), 1);
}

static void release_leaves_what_was_there(void **state)
{
    struct fixture *f = *state;

    vibe_file_write("a", "old", 3);
    begin(f, "a");

    vibe_whole_file_release(&f->whole);
    assert_holds("a", "old");
    assert_int_equal(vibe_file_count(), 1);
}

static void init_names_the_missing_folder(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vibe_whole_file_init(&f->whole, "none/a", &f->err),
                     VIBE_E_IO);
    assert_string_equal(f->err.msg, "none/a: No such file or directory");
}

static void commit_writes_through_a_link(void **state)
{
    struct fixture *f = *state;

    vibe_file_write("a", "old", 3);
    assert_int_equal(symlink("a", "link"), 0);
    begin(f, "link");

    assert_int_equal(vibe_whole_file_commit(&f->whole, &f->err), VIBE_OK);
    assert_int_equal(kind("link"), S_IFLNK);
    assert_holds("a", "new");
}

/* As root, a rename would make a plain file of /dev/null, too. */
static void a_pipe_stays_a_pipe(void **state)
{
    struct fixture *f = *state;
    char got[4] = "";
    int reader;

    assert_int_equal(mkfifo("pipe", 0600), 0);
    reader = open("pipe", O_RDONLY | O_NONBLOCK);
    assert_true(reader >= 0);
    begin(f, "pipe");

    assert_int_equal(vibe_whole_file_commit(&f->whole, &f->err), VIBE_OK);
    assert_int_equal(kind("pipe"), S_IFIFO);
    assert_int_equal(read(reader, got, sizeof(got)), 3);
    assert_string_equal(got, "new");
    close(reader);
}

static void commit_tells_of_a_full_disk(void **state)
{
    struct fixture *f = *state;

    if (access("/dev/full", W_OK) != 0 || kind("/dev/full") != S_IFCHR)
        skip();
    begin(f, "/dev/full");

    assert_int_equal(vibe_whole_file_commit(&f->whole, &f->err), VIBE_E_IO);
    assert_string_equal(f->err.msg, "/dev/full: No space left on device");
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(commit_replaces_what_was_there),
    VIBE_TEST(release_leaves_what_was_there),
    VIBE_TEST(init_names_the_missing_folder),
    VIBE_TEST(commit_writes_through_a_link),
    VIBE_TEST(a_pipe_stays_a_pipe),
    VIBE_TEST(commit_tells_of_a_full_disk),
};

VIBE_TEST_MAIN(tests)
