#include "engine/backend/cuda/layout.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/backend/cuda/matrix.h"
#include "engine/base/size.h"
#include "engine/format/pack.h"

enum { ALIGNMENT = 256, FAR_GROUPS = 16 /* at a time */ };

static int is_scaled(const struct vibe_cuda_layout *l)
{
    for (int i = 0; i < l->src->n_parts; i++)
        if (l->src->part[i].scale)
            return 1;
    return l->dtype == VIBE_I8;
}

/* Append an array of N floats. */
static size_t append_floats(struct vibe_cuda_layout *l)
{
    size_t at = l->small_bytes;

    l->small_bytes += vibe_size_round(l->src->N * sizeof(float), ALIGNMENT);
    return at;
}

/* Units of n rows. */
size_t vibe_cuda_layout_units(const struct vibe_cuda_layout *l, size_t n)
{
    return (n + l->unit - 1) / l->unit;
}

int vibe_cuda_layout_make(struct vibe_cuda_layout *l,
                          const struct vibe_matrix_source *src,
                          struct vibe_error *err)
{
    const enum vibe_dtype dtype = vibe_matrix_gpu_dtype(src);
    const size_t tile = vibe_tile_bytes(dtype);

    *l = (struct vibe_cuda_layout){
        .src = src,
        .dtype = dtype,
        .size = vibe_dtype_size(dtype),
        .is_banded = vibe_cuda_makes_bands(dtype, src->N, src->K),
    };
    l->unit = tile || l->is_banded ? VIBE_TILE_ROWS : 1;
    if (vibe_size_mul(&l->unit_bytes,
                      tile ? vibe_tiles_across(src->K)
                           : vibe_cuda_stride(src->K),
                      tile ? tile : l->unit * l->size) ||
        vibe_size_mul(&l->rows_bytes, l->unit_bytes,
                      vibe_cuda_layout_units(l, src->N)) ||
        l->unit_bytes > VIBE_CUDA_UNIT_BYTES || l->rows_bytes > SIZE_MAX / 2 ||
        (tile && vibe_tiles_across(src->K) > VIBE_TILES_MOST) ||
        src->N > UINT32_MAX - ALIGNMENT)
        return vibe_fail(err, VIBE_E_UNSUPPORTED,
                         "a matrix of %zu x %zu is too large", src->N, src->K);
    l->has_scale = is_scaled(l);
    if (l->has_scale)
        l->scale_at = append_floats(l);
    if (src->bias)
        l->bias_at = append_floats(l);
    if (src->gamma)
        l->gamma_at = append_floats(l);
    return VIBE_OK;
}

/* Which row of the source is row n on the device. */
static size_t source_row(const struct vibe_matrix_source *src, size_t n)
{
    return src->is_pair ? n / 2 + n % 2 * (src->N / 2) : n;
}

static float byte_to_f32(unsigned char byte, enum vibe_dtype dtype)
{
    float f;

    vibe_dtype_to_f32(&f, &byte, dtype, 1);
    return f;
}

/* out[n] of the plan's dtype = in[n] of another, exactly. */
static void widen(void *out, enum vibe_dtype to, const void *in,
                  enum vibe_dtype from, size_t n)
{
    const unsigned char *bytes = in;
    uint16_t *halves = out;

    if (to == from) {
        memcpy(out, in, n * vibe_dtype_size(to));
        return;
    }
    if (to == VIBE_F32) {
        vibe_dtype_to_f32(out, in, from, n);
        return;
    }
    assert(to == VIBE_BF16 && (from == VIBE_F8_E4M3 || from == VIBE_I8));
    for (size_t i = 0; i < n; i++) {
        float f = byte_to_f32(bytes[i], from);
        uint32_t bits;

        memcpy(&bits, &f, sizeof(bits));
        halves[i] = (uint16_t)(bits >> 16);
    }
}

/* Columns k .. k + n_k - 1 of row n of a part that is expanded, as bf16, which
 * holds what quant.h's int4 stands for; k begins a tile of pack.h. */
static void expand(uint16_t *out, const struct vibe_matrix_part *part, size_t K,
                   size_t n, size_t k, size_t n_k)
{
    const size_t block = n - n % VIBE_PACK_BLOCK;
    const size_t left = part->n - block;
    const char *data = part->data;
    float wide[VIBE_PACK_COLUMNS];

    if (part->dtype == VIBE_BF16_PACKED) {
        vibe_unpack_row(out, data + vibe_matrix_part_bytes(part, K, 0, block),
                        left < VIBE_PACK_BLOCK ? left : VIBE_PACK_BLOCK, K,
                        n % VIBE_PACK_ROWS,
                        (n - block) / VIBE_PACK_ROWS * vibe_pack_across(K) +
                            k / VIBE_PACK_COLUMNS);
        return;
    }
    data += n * vibe_dtype_bytes(part->dtype, K) +
            vibe_dtype_bytes(part->dtype, k);
    vibe_dtype_to_f32(wide, data, part->dtype, n_k);
    for (size_t i = 0; i < n_k; i++) {
        uint32_t bits;

        if (part->group_scale)
            wide[i] *= part->group_scale[n * (K / part->group) +
                                         (k + i) / part->group];
        memcpy(&bits, &wide[i], sizeof(bits));
        out[i] = (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
    }
}

/* Row n on the device, among the parts of a linear matrix. */
static struct vibe_tile_row find_row(const struct vibe_matrix_source *src,
                                     size_t n)
{
    const struct vibe_matrix_part *part = src->part;

    for (n = source_row(src, n); n >= part->n; part++)
        n -= part->n;
    return (struct vibe_tile_row){.part = part, .n = n};
}

/* The rows of a group of tiles. */
static void find_group(struct vibe_tile_row row[VIBE_TILE_ROWS],
                       const struct vibe_matrix_source *src, size_t group)
{
    for (size_t r = 0; r < VIBE_TILE_ROWS; r++) {
        const size_t n = group * VIBE_TILE_ROWS + r;

        row[r] = n < src->N ? find_row(src, n) : (struct vibe_tile_row){0};
    }
}

/* Where column k of a row is that begins at out. */
static char *column_at(char *out, const struct vibe_cuda_layout *l, size_t k)
{
    const size_t tile = k / VIBE_TILE_COLUMNS * VIBE_TILE_COLUMNS;

    return out +
           (l->is_banded ? tile * VIBE_TILE_ROWS + k - tile : k * l->size);
}

static void lay_linear(char *out, const struct vibe_cuda_layout *l, size_t i)
{
    const struct vibe_tile_row row = find_row(l->src, i);
    const struct vibe_matrix_part *part = row.part;
    const size_t n = row.n;
    const size_t K = l->src->K;
    const size_t step = l->is_banded ? VIBE_TILE_COLUMNS : K;
    const size_t size = vibe_dtype_size(part->dtype);

    for (size_t k = 0; part->dtype > VIBE_I8 && k < K; k += VIBE_PACK_COLUMNS) {
        size_t n_k = K - k < VIBE_PACK_COLUMNS ? K - k : VIBE_PACK_COLUMNS;
        uint16_t halves[VIBE_PACK_COLUMNS];

        expand(halves, part, K, n, k, n_k);
        widen(column_at(out, l, k), l->dtype, halves, VIBE_BF16, n_k);
    }
    for (size_t k = 0; part->dtype <= VIBE_I8 && k < K; k += step)
        widen(column_at(out, l, k), l->dtype,
              (const char *)part->data + (n * K + k) * size, part->dtype, step);
}

/* [in][taps] of row n to [taps][in]. */
static void lay_conv(char *out, const struct vibe_cuda_layout *l, size_t n)
{
    const struct vibe_matrix_source *src = l->src;
    size_t size = l->size;
    size_t taps = src->K / src->in;
    const char *in = (const char *)src->part[0].data + n * src->K * size;

    for (size_t tap = 0; tap < taps; tap++)
        for (size_t i = 0; i < src->in; i++)
            memcpy(column_at(out, l, tap * src->in + i),
                   in + (i * taps + tap) * size, size);
}

/* Row phase * out + o: tap phase + stride for the previous column, then tap
 * phase for the current one. */
static void lay_transposed(char *out, const struct vibe_cuda_layout *l,
                           size_t n)
{
    const struct vibe_matrix_source *src = l->src;
    size_t size = l->size;
    size_t stride = src->N / src->out;
    size_t phase = n / src->out;
    const char *in = (const char *)src->part[0].data +
                     (n % src->out * 2 * stride + phase) * size;

    for (size_t i = 0; i < src->in; i++) {
        memcpy(column_at(out, l, i), in + stride * size, size);
        memcpy(column_at(out, l, src->in + i), in, size);
        in += src->out * 2 * stride * size;
    }
}

/* What bits p leave to be put into v, see below. */
static uint32_t left_of(uint32_t p, uint32_t v)
{
    const uint32_t swapped = (v & 0x00FF00FF) << 8 | (v >> 8 & 0x00FF00FF);

    return p ^ swapped ^ v << 4;
}

/*
 * Four float8 as weights.cuh takes them: each half of a word has two, the first
 * with its sign in bit 15 and the rest in bits 10 .. 4.  The second one has
 * these bits in (half with its bytes swapped) ^ half << 4: the free bits of the
 * half are what makes that so.
 */
static uint32_t braid(uint32_t v)
{
    const uint32_t first = (v & 0xFF) | (v & 0xFF00) << 8;
    const uint32_t second = (v >> 16 & 0xFF) | (v >> 8 & 0xFF0000);
    const uint32_t p = (second & 0x00800080) << 8 | (second & 0x007F007F) << 4;
    uint32_t out = (first & 0x00800080) << 8 | (first & 0x007F007F) << 4;
    uint32_t left = left_of(p, out);

    out |= (left >> 4 & 0x08080808) | (left >> 8 & 0x00070007);
    return out | (left_of(p, out) << 8 & 0x70007000);
}

/* Give the bytes of a unit the form in which they are multiplied. */
static void lay_bytes(char *unit, const struct vibe_cuda_layout *l)
{
    uint32_t *words = (uint32_t *)(void *)unit;

    if (l->dtype == VIBE_F8_E4M3)
        for (size_t i = 0; i < l->unit_bytes / 4; i++)
            words[i] = braid(words[i]);
    else if (l->dtype == VIBE_I8)
        for (size_t i = 0; i < l->unit_bytes / 4; i++)
            words[i] ^= 0x80808080; /* 128 more */
}

static void lay_elements(char *out, const struct vibe_cuda_layout *l, size_t n)
{
    switch (l->src->layout) {
    case VIBE_LAYOUT_LINEAR:
        lay_linear(out, l, n);
        return;
    case VIBE_LAYOUT_CONV:
        lay_conv(out, l, n);
        return;
    case VIBE_LAYOUT_CONV_TRANSPOSE:
        lay_transposed(out, l, n);
        return;
    }
}

void vibe_cuda_layout_lay(void *out, const struct vibe_cuda_layout *l, size_t i)
{
    const size_t used = l->src->K * l->size * l->unit;
    struct vibe_tile_row row[VIBE_TILE_ROWS];

    if (vibe_tile_bytes(l->dtype)) {
        find_group(row, l->src, i);
        vibe_tiles_lay(out, l->dtype, row, l->src->K);
        return;
    }
    for (size_t r = 0; r < l->unit; r++)
        lay_elements((char *)out + r * VIBE_TILE_COLUMNS, l, i * l->unit + r);
    memset((char *)out + used, 0, l->unit_bytes - used);
    lay_bytes(out, l);
}

/* What sums of row n are multiplied by. */
float vibe_cuda_layout_scale(const struct vibe_cuda_layout *l, size_t n)
{
    const struct vibe_matrix_part *part = l->src->part;
    float unit = l->dtype == VIBE_I8 ? 64.0f : 1.0f;

    /* the only part of a convolution may count channels, not rows */
    for (n = source_row(l->src, n);
         l->src->layout == VIBE_LAYOUT_LINEAR && n >= part->n; part++)
        n -= part->n;
    if (!part->scale)
        return unit;
    return unit * part->scale[part->n_scales > 1 ? n % part->n_scales : 0];
}

float vibe_cuda_layout_bias(const struct vibe_cuda_layout *l, size_t n)
{
    const struct vibe_matrix_source *src = l->src;

    if (src->layout == VIBE_LAYOUT_CONV_TRANSPOSE)
        return src->bias[n % src->out];
    return src->bias[source_row(src, n)];
}

float vibe_cuda_layout_gamma(const struct vibe_cuda_layout *l, size_t n)
{
    return l->src->gamma[source_row(l->src, n)];
}

int vibe_cuda_layout_far(struct vibe_tiles_far *far,
                         const struct vibe_cuda_layout *l,
                         struct vibe_error *err)
{
    const size_t n = vibe_cuda_layout_units(l, l->src->N);
    int failed = 0;

    if (l->dtype != VIBE_BF16_PACKED)
        return VIBE_OK;
#pragma omp parallel for ordered schedule(static, 1) reduction(| : failed)
    for (size_t first = 0; first < n; first += FAR_GROUPS) {
        struct vibe_tiles_far some = {0};

        for (size_t i = first; i < n && i < first + FAR_GROUPS; i++) {
            struct vibe_tile_row row[VIBE_TILE_ROWS];

            find_group(row, l->src, i);
            failed |= vibe_tiles_far_add(&some, row, l->src->K);
        }
#pragma omp ordered
        failed |= vibe_tiles_far_append(far, &some);
        vibe_tiles_far_release(&some);
    }
    if (failed)
        return vibe_fail(err, VIBE_E_NOMEM,
                         "no memory for %zu escapes of packed weights",
                         far->n_escapes);
    return VIBE_OK;
}
