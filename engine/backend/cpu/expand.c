/* Rows of weights that kernels do not read in place, made wide. */
#include <string.h>

#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/state.h"

/* Rows of the block that a row of BF16_PACKED lies in. */
static size_t block_rows(const struct vibe_cpu_weights *row)
{
    size_t left = row->part->n - (row->row - row->row % VIBE_PACK_BLOCK);

    return left < VIBE_PACK_BLOCK ? left : VIBE_PACK_BLOCK;
}

/* Which tile of its block, for column k. */
static size_t tile_of(const struct vibe_cpu_weights *row, size_t K, size_t k)
{
    return row->row % VIBE_PACK_BLOCK / VIBE_PACK_ROWS * vibe_pack_across(K) +
           k / VIBE_PACK_COLUMNS;
}

void vibe_cpu_expand_row(float *out, const struct vibe_cpu_weights *row,
                         size_t K, size_t k, size_t n_k)
{
    const struct vibe_matrix_part *part = row->part;
    uint16_t halves[VIBE_PACK_COLUMNS];

    assert(k % VIBE_CPU_EXPAND_K == 0 && n_k <= VIBE_CPU_EXPAND_K);
    if (row->dtype == VIBE_BF16_PACKED) {
        vibe_unpack_row(halves, row->data, block_rows(row), K,
                        row->row % VIBE_PACK_ROWS, tile_of(row, K, k));
        vibe_dtype_to_f32(out, halves, VIBE_BF16, n_k);
        return;
    }
    vibe_dtype_to_f32(out,
                      (const char *)row->data + vibe_dtype_bytes(row->dtype, k),
                      row->dtype, n_k);
    if (row->dtype == VIBE_I4) {
        const float *scale = part->group_scale + row->row * (K / part->group);

        for (size_t i = 0; i < n_k; i++)
            out[i] *= scale[(k + i) / part->group];
    }
}

void vibe_cpu_expand_tile(const struct vibe_cpu_kernels *kernels, uint16_t *out,
                          size_t ld, const struct vibe_cpu_weights *row,
                          size_t K, size_t k)
{
    const size_t i = tile_of(row, K, k);
    const size_t n_tiles = vibe_pack_n_tiles(block_rows(row), K);
    const char *block = row->data;
    struct vibe_pack_tile tile;

    memcpy(&tile, block + i * sizeof(tile), sizeof(tile));
    kernels->unpack(out, ld,
                    block + vibe_pack_planes_at(n_tiles) + i * VIBE_PACK_PLANES,
                    tile.base);
    vibe_unpack_escapes(out, ld, block, n_tiles, i);
}
