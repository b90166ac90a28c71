/*
 * mail.cuh - words that blocks of a kernel leave each other.
 *
 * A word is BLANK until its only writer has left it, so that who reads one sees
 * for itself whether it has arrived; who knows that all have read it makes it
 * blank again.  Stores and loads are relaxed ones of gpu scope, which do not
 * race.
 */
#ifndef VIBE_CUDA_MAIL_CUH
#define VIBE_CUDA_MAIL_CUH

enum : unsigned { BLANK = 0xFFFFFFFFu }; /* a NaN that no operation makes */

#if __CUDA_ARCH__ >= 800

__device__ static inline void send(float *to, float v)
{
    asm volatile("st.relaxed.gpu.global.f32 [%0], %1;" ::"l"(to), "f"(v)
                 : "memory");
}

__device__ static inline void send(float4 *to, float4 v)
{
    asm volatile(
        "st.relaxed.gpu.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to),
        "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w)
        : "memory");
}

/* See what has arrived by now of four words. */
__device__ static inline float4 look(const float *from)
{
    float4 v;

    asm volatile("ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "l"(from)
                 : "memory");
    return v;
}

/* The same, if anything will. */
__device__ static inline void look(float4 &v, const float4 *from, bool is_there)
{
    asm volatile("{.reg .pred is_there;\n"
                 "setp.ne.u32 is_there, %5, 0;\n"
                 "@is_there ld.relaxed.gpu.global.v4.f32 "
                 "{%0, %1, %2, %3}, [%4];}"
                 : "+f"(v.x), "+f"(v.y), "+f"(v.z), "+f"(v.w)
                 : "l"(from), "r"((unsigned)is_there)
                 : "memory");
}

/* The largest of a word and four, which is BLANK if any is. */
__device__ static inline unsigned largest_word(unsigned word, float4 v)
{
    word = max(max(word, __float_as_uint(v.x)), __float_as_uint(v.y));
    return max(max(word, __float_as_uint(v.z)), __float_as_uint(v.w));
}

__device__ static inline void leave_blank(float *at)
{
    send(at, __uint_as_float(BLANK));
}

#endif

#endif /* VIBE_CUDA_MAIL_CUH */
