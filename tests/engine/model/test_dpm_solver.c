#include "engine/model/dpm_solver.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/golden.h"
#include "tests/support/vibe_test.h"

struct fixture {
    struct vibe_dpm_solver solver;
    struct vibe_error err;
};

static int setup(void **state)
{
    *state = calloc(1, sizeof(struct fixture));
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_dpm_solver_release(&f->solver);
    free(f);
    return 0;
}

/* Tables are compared to float rounding: two parts in ten million of a float,
 * plus what the published digits leave open. */
static void assert_digits(double got, double want, double digit)
{
    double bound = 2.4e-7 * fabs(want) + digit;

    if (!(fabs(got - want) <= bound))
        fail_msg("%.9g, expected %.9g", got, want);
}

struct row {
    int t;
    double sigma, alpha, s, a, c0, c1;
};

/* Worst cases are c0 and c1: float differences of logarithms of about 10,
 * each with its last bit open, divided by h; the reference has the same noise
 * of 1e-6 in them. */
static void assert_row(const struct vibe_dpm_solver *solver, size_t i,
                       const struct row *want)
{
    const struct vibe_solver_coef *coef = &solver->coef[i];

    assert_int_equal(solver->timesteps[i], want->t);
    assert_digits((double)solver->sigmas[i], want->sigma, 0);
    assert_digits((double)coef->alpha, want->alpha, 0);
    assert_digits((double)coef->sigma, want->s, 0);
    assert_digits((double)coef->a, want->a, 1e-7);
    assert_digits((double)coef->c0, want->c0, 1e-6);
    assert_digits((double)coef->c1, want->c1, 1e-6);
}

static void ten_steps_have_the_published_coefficients(void **state)
{
    static const struct row rows[] = {
        {999, 20291.3027, 4.92821964e-05, 0.99999994, 0.9878808, 0.1551664, 0},
        {899, 6.36459208, 0.155215085, 0.987880707, 0.9634932, 0.1641133,
         -0.006993441},
        {799, 3.10372972, 0.30666855, 0.95181632, 0.9378706, 0.2140711,
         -0.05099651},
        {699, 1.98069751, 0.450690001, 0.892680585, 0.9095139, 0.2423251,
         -0.06844497},
        {599, 1.39075148, 0.583788991, 0.811905384, 0.8776161, 0.2734417,
         -0.08415401},
        {500, 1.01555085, 0.701630294, 0.712541223, 0.835024, 0.3273874,
         -0.1095318},
        {400, 0.740281224, 0.803733766, 0.594989002, 0.778163, 0.4048029,
         -0.1438797},
        {300, 0.522359908, 0.886359096, 0.46299845, 0.6905966, 0.5455166,
         -0.2101297},
        {200, 0.337460667, 0.947503567, 0.319745183, 0.5272803, 0.8640933,
         -0.378008},
        {100, 0.171043754, 0.985685349, 0.168595329, 0, 1, 0},
    };
    struct fixture *f = *state;

    assert_int_equal(vibe_dpm_solver_init(&f->solver, 10, NULL), VIBE_OK);

    for (size_t i = 0; i < 10; i++)
        assert_row(&f->solver, i, &rows[i]);
    assert_float_equal(f->solver.sigmas[10], 0.0f, 0.0f);
}

static void five_steps_have_the_published_coefficients(void **state)
{
    static const struct row rows[] = {
        {999, 20291.3027, 4.92821964e-05, 0.99999994, 0.9518164, 0.3066216, 0},
        {799, 3.10372972, 0.30666855, 0.95181632, 0.8530064, 0.3369192,
         -0.01472045},
        {599, 1.39075148, 0.583788991, 0.811905384, 0.7328305, 0.5235565,
         -0.147641},
        {400, 0.740281224, 0.803733766, 0.594989002, 0.5373968, 0.8367415,
         -0.3211618},
        {200, 0.337460667, 0.947503567, 0.319745183, 0, 1, 0},
    };
    struct fixture *f = *state;

    assert_int_equal(vibe_dpm_solver_init(&f->solver, 5, NULL), VIBE_OK);

    for (size_t i = 0; i < 5; i++)
        assert_row(&f->solver, i, &rows[i]);
}

static void twenty_steps_have_the_published_coefficients(void **state)
{
    static const struct row first = {
        999, 20291.3027, 4.92821964e-05, 0.99999994, 0.9969656, 0.07779459, 0};
    static const struct row tenth = {549,         1.18408084, 0.645222068,
                                     0.763995111, 0.9326515,  0.1475158,
                                     -0.04765283};
    static const struct row before_last = {
        100,       0.171043754, 0.985685349, 0.168595329,
        0.5395692, 0.8370819,   -0.3730735};
    struct fixture *f = *state;

    assert_int_equal(vibe_dpm_solver_init(&f->solver, 20, NULL), VIBE_OK);

    assert_row(&f->solver, 0, &first);
    assert_row(&f->solver, 9, &tenth);
    assert_row(&f->solver, 18, &before_last);
}

/* The schedule's corners: a float accumulator would give 20291.310546875. */
static void the_noisiest_sigma_is_exact(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vibe_dpm_solver_init(&f->solver, 999, NULL), VIBE_OK);

    assert_int_equal(f->solver.timesteps[0], 999);
    assert_true(f->solver.sigmas[0] == 20291.302734375f);
    assert_digits((double)f->solver.sigmas[1], 641.66241, 5e-6);
}

/* Steps that fall between two timesteps go to the even one. */
static void timesteps_round_halves_to_even(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vibe_dpm_solver_init(&f->solver, 6, NULL), VIBE_OK);

    assert_int_equal(f->solver.timesteps[1], 832); /* 832.5 */
    assert_int_equal(f->solver.timesteps[5], 166); /* 166.5 */
}

/* Follow x under a model given as v(x). */
static void assert_path(struct fixture *f, size_t n, double slope,
                        double constant, const double *want)
{
    double x = 1.0;
    double m1 = 0.0;

    assert_int_equal(vibe_dpm_solver_init(&f->solver, n, NULL), VIBE_OK);
    for (size_t i = 0; i < n; i++) {
        const struct vibe_solver_coef *coef = &f->solver.coef[i];
        double v = slope * x + constant;
        double m0 = (double)coef->alpha * x - (double)coef->sigma * v;

        x = (double)coef->a * x + (double)coef->c0 * m0 + (double)coef->c1 * m1;
        m1 = m0;
        /* seven digits are published; c0 and c1 carry noise of 1e-6 */
        if (!(fabs(x - want[i]) <= 2e-6))
            fail_msg("step %zu: %.9g, expected %.9g", i, x, want[i]);
    }
    vibe_dpm_solver_release(&f->solver);
}

static void steps_follow_the_worked_examples(void **state)
{
    static const double slope_10[] = {
        0.832722,  0.6955223, 0.591613,  0.5054276, 0.4340498,
        0.3735201, 0.3229036, 0.2811869, 0.2491164, 0.2035505};
    static const double slope_20[] = {
        0.9191749, 0.8454084, 0.7803336, 0.7208758, 0.6662868,
        0.6160486, 0.5697549, 0.527063,  0.4876735, 0.4520144,
        0.4184004, 0.3873755, 0.3587408, 0.3323218, 0.307965,
        0.2855422, 0.2649642, 0.2462269, 0.2296424, 0.2077999};
    static const double constant_10[] = {
        0.9103052, 0.8226951, 0.7416962, 0.662732,  0.585844,
        0.5092139, 0.4336184, 0.3593456, 0.2877629, 0.1993461};
    struct fixture *f = *state;

    assert_path(f, 10, 1.0, 0.0, slope_10);
    assert_path(f, 20, 1.0, 0.0, slope_20);
    assert_path(f, 10, 0.0, 0.5, constant_10);
}

static void tables_equal_the_recorded_ones(void **state)
{
    struct fixture *f = *state;

    for (size_t model = 0; model < GOLDEN_MODELS; model++) {
        struct golden g;

        golden_open(&g, model);
        for (size_t n = 10; n <= 20; n += 10) {
            char name[32];
            size_t n_ids;
            struct golden_tensor sigmas = golden_get(&g, "dpm.sigmas%zu", n);
            const int64_t *timesteps;

            snprintf(name, sizeof(name), "dpm.timesteps%zu", n);
            timesteps = golden_ids(&g, name, &n_ids);
            assert_int_equal(vibe_dpm_solver_init(&f->solver, n, NULL),
                             VIBE_OK);
            assert_int_equal(n_ids, n);
            assert_int_equal(sigmas.n, n + 1);
            for (size_t i = 0; i < n; i++)
                assert_int_equal(f->solver.timesteps[i], timesteps[i]);
            for (size_t i = 0; i <= n; i++)
                assert_digits((double)f->solver.sigmas[i],
                              (double)sigmas.data[i], 0);
            vibe_dpm_solver_release(&f->solver);
        }
        golden_release(&g);
    }
}

/*
 * Whatever the number of steps, a constant clean signal is a fixed point: for
 * the v of x0 = 1, x = alpha + sigma * noise stays on its line and ends at 1.
 * 1e-3: up to 1000 steps, each rounding its coefficients by 1e-7 and its
 * differences of logarithms by 1e-6.
 */
static void every_number_of_steps_ends_at_the_signal(void **state)
{
    struct fixture *f = *state;

    for (size_t n = 1; n <= VIBE_SOLVER_MAX_STEPS; n++) {
        double x = 0.5;
        double m1 = 0.0;

        assert_int_equal(vibe_dpm_solver_init(&f->solver, n, NULL), VIBE_OK);
        for (size_t i = 0; i < n; i++) {
            const struct vibe_solver_coef *coef = &f->solver.coef[i];
            double v = ((double)coef->alpha * x - 1.0) / (double)coef->sigma;
            double m0 = (double)coef->alpha * x - (double)coef->sigma * v;

            x = (double)coef->a * x + (double)coef->c0 * m0 +
                (double)coef->c1 * m1;
            m1 = m0;
            assert_true(fabs(x) < 2.0);
        }
        assert_true(fabs(x - 1.0) < 1e-3);
        vibe_dpm_solver_release(&f->solver);
    }
}

static void init_refuses_numbers_of_steps_out_of_range(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vibe_dpm_solver_init(&f->solver, 0, &f->err), VIBE_E_ARG);
    assert_int_equal(vibe_dpm_solver_init(&f->solver, 1001, &f->err),
                     VIBE_E_ARG);
    assert_non_null(strstr(f->err.msg, "1001"));
    assert_null(f->solver.coef);
}

static void timesteps_reach_the_head_as_bfloat16(void **state)
{
    static const struct {
        int t;
        float seen;
    } cases[] = {{999, 1000}, {949, 948}, {899, 900}, {849, 848}, {749, 748},
                 {599, 600},  {501, 500}, {500, 500}, {257, 256}, {259, 260},
                 {255, 255},  {1, 1},     {0, 0}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_true(vibe_dpm_timestep(cases[i].t) == cases[i].seen);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(init_refuses_numbers_of_steps_out_of_range),
    VIBE_TEST(ten_steps_have_the_published_coefficients),
    VIBE_TEST(five_steps_have_the_published_coefficients),
    VIBE_TEST(twenty_steps_have_the_published_coefficients),
    VIBE_TEST(the_noisiest_sigma_is_exact),
    VIBE_TEST(timesteps_round_halves_to_even),
    VIBE_TEST(steps_follow_the_worked_examples),
    VIBE_TEST(tables_equal_the_recorded_ones),
    VIBE_TEST(every_number_of_steps_ends_at_the_signal),
    VIBE_TEST(timesteps_reach_the_head_as_bfloat16),
};

VIBE_TEST_MAIN(tests)
