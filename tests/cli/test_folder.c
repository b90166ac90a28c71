#include "cli/folder.h"

#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/scratch.h"
#include "tests/support/vibe_test.h"

static struct vibe_scratch scratch;

static int setup(void **state)
{
    (void)state;
    return vibe_scratch_enter(&scratch) || mkdir("real", 0777) ||
           mkdir("real/in", 0777) || symlink("real/in", "link");
}

static int teardown(void **state)
{
    (void)state;
    return vibe_scratch_leave(&scratch);
}

static void paths_of_one_place_are_equal(void **state)
{
    static const char *const same[][2] = {
        {"a.wav", "./a.wav"},
        {"a.wav", ".//a.wav"},
        {"a.wav", "real/../a.wav"},
        {"a.wav", "new/../a.wav"},
        {"a.wav", "new/.././a.wav"},
        {"real/a.wav", "link/../a.wav"},
        {"real/in/a.wav", "link/a.wav"},
        {"real/in/x/y/a.wav", "link/x//y/z/../a.wav"},
        {"/a.wav", "/../../a.wav"},
        {"/nowhere/a.wav", "//nowhere/./b/../a.wav"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(same) / sizeof(*same); i++) {
        char *a = vibe_folder_place(same[i][0]);
        char *b = vibe_folder_place(same[i][1]);

        assert_non_null(a);
        assert_string_equal(a, b);
        free(a);
        free(b);
    }
}

static void a_place_is_absolute(void **state)
{
    char *place = vibe_folder_place("new/a.wav");
    char *here = realpath(".", NULL);

    (void)state;
    assert_memory_equal(place, here, strlen(here));
    assert_string_equal(place + strlen(here), "/new/a.wav");
    free(place);
    free(here);
}

static void a_link_to_a_file_is_that_file(void **state)
{
    char *link, *to;

    (void)state;
    vibe_file_write("real/a.wav", "", 0);
    assert_int_equal(symlink("real/a.wav", "b.wav"), 0);
    link = vibe_folder_place("b.wav");
    to = vibe_folder_place("link/../a.wav");
    assert_string_equal(link, to);
    free(link);
    free(to);
}

static void a_pattern_matches_its_path_alone(void **state)
{
    static const char path[] = "real/a[1]*?\\";
    char *pattern = vibe_folder_pattern(path);
    glob_t found;

    (void)state;
    vibe_file_write(path, "", 0);
    vibe_file_write("real/a1*?\\", "", 0);
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 1);
    assert_string_equal(found.gl_pathv[0], path);
    globfree(&found);
    free(pattern);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(paths_of_one_place_are_equal),
    VIBE_TEST(a_place_is_absolute),
    VIBE_TEST(a_link_to_a_file_is_that_file),
    VIBE_TEST(a_pattern_matches_its_path_alone),
};

VIBE_TEST_MAIN(tests)
