#include "engine/model/qwen2.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/backend/ops.h"
#include "engine/format/safetensors_write.h"
#include "engine/format/weights.h"
#include "engine/model/kvcache.h"
#include "tests/support/golden.h"
#include "tests/support/vibe_test.h"

enum { MAX_ROWS = 4, MAX_POSITIONS = 512, MAX_HIDDEN = 256 };

struct fixture {
    struct golden g;
    struct vibe_qwen2 *lm;
    struct vibe_kvcache *cache; /* sequences 0 .. MAX_ROWS - 1 */
    struct vibe_tensor x, hidden, logits;
    int32_t *at; /* device: seq[MAX_ROWS], pos[MAX_ROWS] */
    size_t H;
    float *prompt; /* [n_prompt][H], voices in their places */
    size_t n_prompt;
    struct vibe_error err;
};

VIBE_TEST_FIXTURE(struct fixture)

/* The recorded prompt: embeddings of its ids, and of the voices where the
 * placeholders are. */
static void embed_prompt(struct fixture *f)
{
    struct golden_tensor voices = golden_get(&f->g, "voice.embeds");
    const int64_t *ids = golden_ids(&f->g, "prompt.ids", &f->n_prompt);
    size_t frame = 0;

    f->prompt = calloc(f->n_prompt * f->H, sizeof(*f->prompt));
    assert_non_null(f->prompt);
    for (size_t i = 0; i < f->n_prompt; i++) {
        int32_t id = (int32_t)ids[i];

        assert_int_equal(
            vibe_qwen2_embed(f->lm, f->prompt + i * f->H, &id, 1, NULL),
            VIBE_OK);
        if (id != f->g.control[VIBE_CONTROL_DIFFUSION])
            continue;
        memcpy(f->prompt + i * f->H, voices.data + frame++ * f->H,
               f->H * sizeof(float));
    }
    assert_int_equal(frame * f->H, voices.n);
}

static void open_lm_with(struct fixture *f, size_t model, enum vibe_dtype kv)
{
    struct golden *g = &f->g;

    golden_open(g, model);
    g->be->kv_dtype = kv;
    f->H = g->config.lm.hidden_size;
    assert_true(f->H <= MAX_HIDDEN);
    assert_int_equal(vibe_qwen2_open(&f->lm, g->be, g->w, &g->config.lm,
                                     g->control, MAX_ROWS, NULL, &f->err),
                     VIBE_OK);
    assert_int_equal(vibe_kvcache_open(&f->cache, g->be, &g->config.lm,
                                       MAX_ROWS, MAX_POSITIONS, kv, NULL),
                     VIBE_OK);
    for (size_t seq = 0; seq < MAX_ROWS; seq++)
        assert_int_equal(
            vibe_kvcache_ensure(f->cache, &g->stream, seq, MAX_POSITIONS, NULL),
            VIBE_OK);
    f->x = golden_put(g, NULL, MAX_ROWS, 1, f->H);
    f->hidden = golden_put(g, NULL, MAX_ROWS, 1, f->H);
    f->logits = golden_put(g, NULL, MAX_ROWS, 1, VIBE_N_CONTROL);
    f->at = g->be->ops->alloc(g->be, sizeof(*f->at) * 2 * MAX_ROWS);
    assert_non_null(f->at);
    embed_prompt(f);
}

static void open_lm(struct fixture *f, size_t model)
{
    open_lm_with(f, model, VIBE_F32);
}

static void close_lm(struct fixture *f)
{
    struct vibe_backend *be = f->g.be;

    free(f->prompt);
    be->ops->free(be, f->at);
    vibe_tensor_release(&f->logits, be);
    vibe_tensor_release(&f->hidden, be);
    vibe_tensor_release(&f->x, be);
    vibe_kvcache_free(f->cache);
    vibe_qwen2_free(f->lm);
    golden_release(&f->g);
}

/* hidden[H] after T rows of a prompt. */
static void prefill(struct fixture *f, float *hidden, const float *embeds,
                    size_t T, int32_t seq, int32_t pos)
{
    struct vibe_tensor last = vibe_tensor_batch(&f->hidden, 0, 1);

    vibe_qwen2_prefill(f->lm, &f->g.stream, &last, embeds, T,
                       vibe_kvcache_kv(f->cache), seq, pos);
    golden_take(&f->g, hidden, &last);
}

/*
 * Advance n rows by one position.
 *
 *   hidden   [n][H]
 *   x        [n] borrowed rows of H
 */
static void step(struct fixture *f, float *hidden, const float *const *x,
                 const int32_t *seq, const int32_t *pos, size_t n)
{
    const struct vibe_rows rows = {f->at, f->at + MAX_ROWS};
    struct vibe_tensor in = vibe_tensor_batch(&f->x, 0, n);
    struct vibe_tensor out = vibe_tensor_batch(&f->hidden, 0, n);

    for (size_t i = 0; i < n; i++)
        vibe_write(&f->g.stream, (float *)in.data + i * f->H, x[i],
                   f->H * sizeof(float));
    vibe_write(&f->g.stream, f->at, seq, n * sizeof(*seq));
    vibe_write(&f->g.stream, f->at + MAX_ROWS, pos, n * sizeof(*pos));
    vibe_qwen2_step(f->lm, &f->g.stream, &out, &in, vibe_kvcache_kv(f->cache),
                    &rows);
    golden_take(&f->g, hidden, &out);
}

static void open_names_the_missing_tensor(void **state)
{
    struct fixture *f = *state;
    struct vibe_lm_config config;

    golden_open(&f->g, 0);
    config = f->g.config.lm;
    config.num_hidden_layers++;

    assert_int_equal(vibe_qwen2_open(&f->lm, f->g.be, f->g.w, &config,
                                     f->g.control, 1, NULL, &f->err),
                     VIBE_E_FORMAT);
    assert_null(f->lm);
    assert_non_null(strstr(f->err.msg, "layers.4.input_layernorm.weight"));
    assert_int_equal(vibe_qwen2_check(f->g.w, &config, NULL), VIBE_E_FORMAT);
    golden_release(&f->g);
}

static void open_names_the_misshapen_tensor(void **state)
{
    struct fixture *f = *state;
    struct vibe_lm_config config;

    golden_open(&f->g, 1);
    config = f->g.config.lm;
    config.vocab_size--;

    assert_int_equal(vibe_qwen2_open(&f->lm, f->g.be, f->g.w, &config,
                                     f->g.control, 1, NULL, &f->err),
                     VIBE_E_FORMAT);
    assert_non_null(strstr(f->err.msg, "embed_tokens"));
    golden_release(&f->g);
}

static void open_refuses_control_ids_outside_the_vocabulary(void **state)
{
    struct fixture *f = *state;
    int32_t ids[VIBE_N_CONTROL];

    golden_open(&f->g, 0);
    memcpy(ids, f->g.control, sizeof(ids));
    ids[VIBE_CONTROL_EOS] = (int32_t)f->g.config.lm.vocab_size;

    assert_int_equal(vibe_qwen2_open(&f->lm, f->g.be, f->g.w, &f->g.config.lm,
                                     ids, 1, NULL, &f->err),
                     VIBE_E_FORMAT);
    assert_null(f->lm);
    golden_release(&f->g);
}

static void embed_refuses_ids_outside_the_vocabulary(void **state)
{
    struct fixture *f = *state;
    const int32_t ids[] = {1, -1};
    float out[2 * MAX_HIDDEN];

    open_lm(f, 0);

    assert_int_equal(vibe_qwen2_embed(f->lm, out, ids, 2, &f->err),
                     VIBE_E_FORMAT);
    assert_non_null(strstr(f->err.msg, "-1"));
    close_lm(f);
}

/* One generated token of the record, the state it leaves behind. */
struct walk {
    size_t frame;
    int32_t pos, neg;       /* next positions of the two branches */
    float e_in[MAX_HIDDEN]; /* what both branches consume at this step */
    float hidden[2 * MAX_HIDDEN];
};

/* Run both branches at step i; the first step's positive one is the prompt. */
static void advance(struct fixture *f, struct walk *w, size_t i)
{
    const float *const rows[] = {w->e_in, w->e_in};
    const int32_t seq[] = {0, 1};
    const int32_t pos[] = {w->pos, w->neg};

    if (i > 0) {
        step(f, w->hidden, rows, seq, pos, 2);
        w->pos++;
        return;
    }
    prefill(f, w->hidden, f->prompt, f->n_prompt, 0, 0);
    w->pos = (int32_t)f->n_prompt;
    assert_int_equal(vibe_qwen2_embed(f->lm, w->e_in,
                                      &f->g.control[VIBE_CONTROL_START], 1,
                                      NULL),
                     VIBE_OK);
    step(f, w->hidden + f->H, rows, seq + 1, pos + 1, 1);
}

static void assert_logits(struct fixture *f, const struct walk *w, size_t i)
{
    struct golden_tensor want = golden_get(
        &f->g, "generated.logits_start_end_diff_eos");
    struct vibe_tensor hidden = vibe_tensor_batch(&f->hidden, 0, 1);
    struct vibe_tensor logits = vibe_tensor_batch(&f->logits, 0, 1);
    float got[VIBE_N_CONTROL];
    char what[64];

    vibe_write(&f->g.stream, hidden.data, w->hidden, f->H * sizeof(float));
    vibe_qwen2_logits(f->lm, &f->g.stream, &logits, &hidden);
    golden_take(&f->g, got, &logits);
    snprintf(what, sizeof(what), "%s logits %zu", f->g.name, i);
    golden_assert(what, got, want.data + i * VIBE_N_CONTROL, VIBE_N_CONTROL);
}

/* Hold the hidden states to the frame's record and take its embedding. */
static void consume_frame(struct fixture *f, struct walk *w)
{
    struct golden_tensor pos = golden_get(&f->g, "frame%03zu.pos_condition",
                                          w->frame);
    struct golden_tensor neg = golden_get(&f->g, "frame%03zu.neg_condition",
                                          w->frame);
    struct golden_tensor next = golden_get(&f->g, "frame%03zu.next_embed",
                                           w->frame);
    char what[64];

    snprintf(what, sizeof(what), "%s frame %zu", f->g.name, w->frame);
    golden_assert(what, w->hidden, pos.data, f->H);
    golden_assert(what, w->hidden + f->H, neg.data, f->H);
    memcpy(w->e_in, next.data, f->H * sizeof(float));
    w->neg++;
    w->frame++;
}

/* What differs from the record, and the record, both squared and summed. */
struct difference {
    double error, all;
};

static void add_difference(struct difference *d, const float *got,
                           const float *want, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        d->error += pow((double)got[i] - want[i], 2.0);
        d->all += pow(want[i], 2.0);
    }
}

/* The recorded frames with such keys and values; returns |error| / |all| of
 * both branches' hidden states. */
static double forced_difference(struct fixture *f, size_t model,
                                enum vibe_dtype kv)
{
    struct difference d = {0};
    struct walk w = {0};
    const int64_t *ids;
    size_t n_ids;

    open_lm_with(f, model, kv);
    ids = golden_ids(&f->g, "generated.ids", &n_ids);
    for (size_t i = 0; i < n_ids; i++) {
        int32_t id = (int32_t)ids[i];

        advance(f, &w, i);
        if (id == f->g.control[VIBE_CONTROL_DIFFUSION]) {
            add_difference(
                &d, w.hidden,
                golden_get(&f->g, "frame%03zu.pos_condition", w.frame).data,
                f->H);
            add_difference(
                &d, w.hidden + f->H,
                golden_get(&f->g, "frame%03zu.neg_condition", w.frame).data,
                f->H);
            memcpy(w.e_in,
                   golden_get(&f->g, "frame%03zu.next_embed", w.frame++).data,
                   f->H * sizeof(float));
            w.neg++;
            continue;
        }
        if (id == f->g.control[VIBE_CONTROL_START])
            w.neg = 0;
        assert_int_equal(vibe_qwen2_embed(f->lm, w.e_in, &id, 1, NULL),
                         VIBE_OK);
    }
    close_lm(f);
    return sqrt(d.error / d.all);
}

/* Three bits after the first instead of seven: 16 times the error of bf16,
 * which is a rounding of 2^-9 that few layers add to. */
static void float8_keys_and_values_move_the_states_little(void **state)
{
    struct fixture *f = *state;

    for (size_t model = 0; model < GOLDEN_MODELS; model++) {
        const double bf16 = forced_difference(f, model, VIBE_BF16);
        const double f8 = forced_difference(f, model, VIBE_F8_E4M3);

        assert_true(bf16 < 0.003);
        assert_true(f8 < 16 * 0.003);
    }
}

/*
 * Both branches in one pass; the negative row counts only when the token is
 * speech_diffusion, and starts anew at speech_start.
 */
static void forced_generation_equals_the_record(void **state)
{
    struct fixture *f = *state;

    for (size_t model = 0; model < GOLDEN_MODELS; model++) {
        struct walk w = {0};
        const int64_t *ids;
        size_t n_ids;

        open_lm(f, model);
        ids = golden_ids(&f->g, "generated.ids", &n_ids);
        for (size_t i = 0; i < n_ids; i++) {
            int32_t id = (int32_t)ids[i];

            advance(f, &w, i);
            assert_logits(f, &w, i);
            if (id == f->g.control[VIBE_CONTROL_DIFFUSION]) {
                consume_frame(f, &w);
                continue;
            }
            if (id == f->g.control[VIBE_CONTROL_START])
                w.neg = 0;
            assert_int_equal(vibe_qwen2_embed(f->lm, w.e_in, &id, 1, NULL),
                             VIBE_OK);
        }
        assert_true(w.frame > 0);
        close_lm(f);
    }
}

/* Prompts beyond 256 rows are read in blocks.  Where they are cut changes no
 * bit: a row depends on itself and on what is in the cache. */
static void a_prompt_may_be_read_in_parts(void **state)
{
    enum { T = 400 };
    struct fixture *f = *state;
    float whole[MAX_HIDDEN], parts[MAX_HIDDEN];
    float *embeds;

    open_lm(f, 1);
    embeds = calloc(T * f->H, sizeof(*embeds));
    assert_non_null(embeds);
    for (size_t t = 0; t < T; t++)
        memcpy(embeds + t * f->H, f->prompt + t % f->n_prompt * f->H,
               f->H * sizeof(*embeds));

    prefill(f, whole, embeds, T, 0, 0);
    vibe_qwen2_prefill(f->lm, &f->g.stream, NULL, embeds, 77,
                       vibe_kvcache_kv(f->cache), 1, 0);
    prefill(f, parts, embeds + 77 * f->H, T - 77, 1, 77);

    assert_memory_equal(whole, parts, f->H * sizeof(float));
    free(embeds);
    close_lm(f);
}

/* A prompt read token by token gives the same hidden state, to rounding:
 * 1e-5 of numbers up to 4. */
static void steps_equal_a_prompt(void **state)
{
    struct fixture *f = *state;
    float whole[MAX_HIDDEN], last[MAX_HIDDEN];

    open_lm(f, 0);
    prefill(f, whole, f->prompt, 40, 0, 0);
    for (int32_t t = 0; t < 40; t++) {
        const float *row = f->prompt + (size_t)t * f->H;
        const int32_t seq = 1;

        step(f, last, &row, &seq, &t, 1);
    }

    assert_true(golden_error(whole, last, f->H) < 1e-5 * 4);
    close_lm(f);
}

/* Sequences of different lengths in one pass get the bits they get alone. */
static void a_row_is_alike_in_any_batch(void **state)
{
    struct fixture *f = *state;
    const int32_t seq[] = {0, 1, 2, 3};
    const int32_t pos[] = {30, 1, 7, 0};
    const float *rows[MAX_ROWS];
    float together[MAX_ROWS * MAX_HIDDEN];
    float alone[MAX_HIDDEN];

    open_lm(f, 1);
    for (size_t i = 0; i < MAX_ROWS; i++) {
        rows[i] = f->prompt + (10 + i) * f->H;
        if (pos[i] > 0)
            prefill(f, alone, f->prompt, (size_t)pos[i], seq[i], 0);
    }

    step(f, together, rows, seq, pos, MAX_ROWS);
    for (size_t i = 0; i < MAX_ROWS; i++) {
        step(f, alone, &rows[i], &seq[i], &pos[i], 1);
        assert_memory_equal(together + i * f->H, alone, f->H * sizeof(float));
    }
    close_lm(f);
}

/* A sequence that is written from position 0 again has forgotten its past. */
static void position_zero_forgets(void **state)
{
    struct fixture *f = *state;
    float fresh[MAX_HIDDEN], again[MAX_HIDDEN];

    open_lm(f, 0);
    prefill(f, fresh, f->prompt, 9, 2, 0);
    prefill(f, again, f->prompt + 20 * f->H, 50, 2, 0);
    prefill(f, again, f->prompt, 9, 2, 0);

    assert_memory_equal(fresh, again, f->H * sizeof(float));
    close_lm(f);
}

/* Copy a checkpoint, adding a scale for the embedding table and one for each
 * row of the output head. */
static void write_scaled(const struct golden *g, const char *path,
                         const float *table_scale, const float *row_scales)
{
    size_t n = vibe_weights_count(g->w);
    size_t rows = g->config.lm.vocab_size;
    struct vibe_safetensors_item *items = calloc(n + 2, sizeof(*items));

    assert_non_null(items);
    for (size_t i = 0; i < n; i++) {
        struct vibe_weight w;

        vibe_weights_get(g->w, i, &w);
        items[i] = (struct vibe_safetensors_item){
            .name = w.name,
            .dtype = w.dtype,
            .n_dims = w.n_dims,
            .data = w.data,
        };
        memcpy(items[i].shape, w.shape, sizeof(w.shape));
    }
    items[n] = (struct vibe_safetensors_item){
        "model.language_model.embed_tokens.scale_weight",
        VIBE_F32,
        1,
        {1},
        table_scale};
    items[n + 1] = (struct vibe_safetensors_item){
        "lm_head.scale_weight", VIBE_F32, 1, {rows}, row_scales};
    assert_int_equal(vibe_safetensors_write(path, items, n + 2, NULL), VIBE_OK);
    free(items);
}

static void take_logits(struct fixture *f, float *logits, const float *hidden)
{
    struct vibe_tensor in = vibe_tensor_batch(&f->hidden, 0, 1);
    struct vibe_tensor out = vibe_tensor_batch(&f->logits, 0, 1);

    vibe_write(&f->g.stream, in.data, hidden, f->H * sizeof(float));
    vibe_qwen2_logits(f->lm, &f->g.stream, &out, &in);
    golden_take(&f->g, logits, &out);
}

/* Powers of two, so that scaling is exact. */
static void scales_of_tables_are_applied(void **state)
{
    struct fixture *f = *state;
    const float table_scale = 4.0f;
    float row_scales[1024];
    float plain[VIBE_N_CONTROL], scaled[VIBE_N_CONTROL];
    float plain_row[MAX_HIDDEN], row[MAX_HIDDEN];
    const int32_t id = 7;
    struct vibe_weights *w = NULL;
    char path[64];

    open_lm(f, 1);
    take_logits(f, plain, f->prompt);
    assert_int_equal(vibe_qwen2_embed(f->lm, plain_row, &id, 1, NULL), VIBE_OK);
    assert_true(f->g.config.lm.vocab_size <= 1024);
    for (size_t i = 0; i < 1024; i++)
        row_scales[i] = 1.0f;
    row_scales[f->g.control[VIBE_CONTROL_END]] = 8.0f;
    snprintf(path, sizeof(path), "/tmp/vibe_test_qwen2.%ld.safetensors",
             (long)getpid());
    write_scaled(&f->g, path, &table_scale, row_scales);
    assert_int_equal(vibe_weights_open(&w, path, NULL), VIBE_OK);
    vibe_qwen2_free(f->lm);
    assert_int_equal(vibe_qwen2_open(&f->lm, f->g.be, w, &f->g.config.lm,
                                     f->g.control, MAX_ROWS, NULL, &f->err),
                     VIBE_OK);

    take_logits(f, scaled, f->prompt);
    for (size_t i = 0; i < VIBE_N_CONTROL; i++)
        assert_true(scaled[i] ==
                    plain[i] * (i == VIBE_CONTROL_END ? 8.0f : 1.0f));
    assert_int_equal(vibe_qwen2_embed(f->lm, row, &id, 1, NULL), VIBE_OK);
    for (size_t c = 0; c < f->H; c++)
        assert_true(row[c] == 4.0f * plain_row[c]);
    unlink(path);
    close_lm(f);
    vibe_weights_free(w);
}

/* All layers once and four rows of the output head; the model is all BF16. */
static void bytes_count_what_a_step_reads(void **state)
{
    struct fixture *f = *state;
    const struct vibe_lm_config *config;
    size_t attention, mlp;

    open_lm(f, 0);
    config = &f->g.config.lm;
    attention = f->H *
                (2 * f->H + 2 * config->num_key_value_heads * config->head_dim);
    mlp = 3 * f->H * config->intermediate_size;

    assert_int_equal(vibe_qwen2_step_bytes(f->lm),
                     2 * (config->num_hidden_layers * (attention + mlp) +
                          VIBE_N_CONTROL * f->H));
    close_lm(f);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(open_names_the_missing_tensor),
    VIBE_TEST(open_names_the_misshapen_tensor),
    VIBE_TEST(open_refuses_control_ids_outside_the_vocabulary),
    VIBE_TEST(embed_refuses_ids_outside_the_vocabulary),
    VIBE_TEST(forced_generation_equals_the_record),
    VIBE_TEST(float8_keys_and_values_move_the_states_little),
    VIBE_TEST(a_prompt_may_be_read_in_parts),
    VIBE_TEST(steps_equal_a_prompt),
    VIBE_TEST(a_row_is_alike_in_any_batch),
    VIBE_TEST(position_zero_forgets),
    VIBE_TEST(scales_of_tables_are_applied),
    VIBE_TEST(bytes_count_what_a_step_reads),
};

VIBE_TEST_MAIN(tests)
