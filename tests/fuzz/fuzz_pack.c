/*
 * Any bytes as a packed matrix: refused with a sentence, or all of it unpacks
 * inside its bounds.  And any bytes as bf16: packed and unpacked they are the
 * same.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/format/pack.h"

enum { MAX_BLOCKS = 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Crash where what must hold does not, also without assertions. */
static void must(int fact)
{
    if (!fact)
        abort();
}

static size_t rows_of_block(size_t N, size_t i)
{
    size_t left = N - i * VIBE_PACK_BLOCK;

    return left < VIBE_PACK_BLOCK ? left : VIBE_PACK_BLOCK;
}

static void unpack(const uint8_t *packed, size_t N, size_t K, uint16_t *out)
{
    for (size_t i = 0; i < vibe_pack_n_blocks(N); i++)
        vibe_unpack_block(out + i * VIBE_PACK_BLOCK * K,
                          vibe_pack_block_at(packed, i), rows_of_block(N, i),
                          K);
}

static void try_packed(const uint8_t *data, size_t size)
{
    struct vibe_pack_header header = {0};
    struct vibe_error err = {0};
    uint16_t *out;
    int rc;

    if (size < sizeof(header))
        return;
    memcpy(&header, data, sizeof(header));
    if (header.n_rows > 200 || header.n_columns > 600)
        return;
    rc = vibe_pack_check(data, size, header.n_rows, header.n_columns, "fuzz",
                         &err);
    must((rc == VIBE_OK) == (err.msg[0] == '\0'));
    if (rc)
        return;
    out = calloc(header.n_rows * header.n_columns + 1, sizeof(*out));
    must(out != NULL);
    unpack(data, header.n_rows, header.n_columns, out);
    free(out);
}

/* Pack [N][K] at in; owned by the caller. */
static uint8_t *pack(const uint8_t *in, size_t N, size_t K, size_t *bytes)
{
    const void *row[VIBE_PACK_BLOCK];
    size_t sizes[MAX_BLOCKS];
    uint8_t *packed;

    *bytes = vibe_pack_header_bytes(N);
    must(vibe_pack_n_blocks(N) <= MAX_BLOCKS);
    for (size_t i = 0; i < vibe_pack_n_blocks(N); i++) {
        for (size_t r = 0; r < rows_of_block(N, i); r++)
            row[r] = in + (i * VIBE_PACK_BLOCK + r) * K * 2;
        sizes[i] = vibe_pack_block_bytes(row, rows_of_block(N, i), K);
        *bytes += sizes[i];
    }
    packed = malloc(*bytes);
    must(packed != NULL);
    must(vibe_pack_header_write(packed, N, K, sizes) == *bytes);
    for (size_t i = 0; i < vibe_pack_n_blocks(N); i++) {
        uint8_t *at = (uint8_t *)packed +
                      ((const uint8_t *)vibe_pack_block_at(packed, i) - packed);

        for (size_t r = 0; r < rows_of_block(N, i); r++)
            row[r] = in + (i * VIBE_PACK_BLOCK + r) * K * 2;
        vibe_pack_block(at, row, rows_of_block(N, i), K);
    }
    return packed;
}

static void try_weights(const uint8_t *data, size_t size)
{
    size_t K, N, bytes;
    uint8_t *packed;
    uint16_t *out;

    if (size < 4)
        return;
    K = 1 + data[0] + data[1] % 2 * 256u;
    N = (size - 2) / 2 / K;
    if (N == 0 || N > MAX_BLOCKS * VIBE_PACK_BLOCK)
        return;
    packed = pack(data + 2, N, K, &bytes);
    out = calloc(N * K, sizeof(*out));
    must(out != NULL);
    must(vibe_pack_check(packed, bytes, N, K, "fuzz", NULL) == VIBE_OK);
    unpack(packed, N, K, out);
    must(memcmp(out, data + 2, N * K * 2) == 0);
    free(out);
    free(packed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_packed(data, size);
    try_weights(data, size);
    return 0;
}
