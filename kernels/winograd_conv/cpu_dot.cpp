// The bfloat16 form. AVX512-BF16 is in force only after the pragma, so that no function of another header is compiled
// for it and then run on a processor that lacks it.
#include "winograd_conv/shape.hpp"

// Clang has no such pragma.
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__)

#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")

#include "winograd_conv/tiles.hpp"

namespace zellige::winograd {
namespace {

struct Dot {
    static constexpr int most_rows = tall;

    ZELLIGE_INLINE Vector load(const bfloat16 *from) {
        // The masks choose all: without one GCC 12 warns of its own header.
        constexpr __mmask16 all = 0xffff;
        const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from));
        return reinterpret_cast<Vector>(_mm512_maskz_slli_epi32(all, _mm512_maskz_cvtepu16_epi32(all, halves), 16));
    }

    ZELLIGE_INLINE void store(Vector value, bfloat16 *into) {
        const __m256bh rounded = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(value));
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(into), reinterpret_cast<__m256i>(rounded));
    }

    // [count, stored] times [stored / 2, block, 2].
    template <int count>
    ZELLIGE_INLINE void product(const bfloat16 *a, std::int64_t stored, const bfloat16 *b, float *c) {
        __m512 sums[count][2] = {};
        for (std::int64_t k = 0; k < stored; k += 2) {
            const __m512i first = _mm512_loadu_si512(b + k * block), second = _mm512_loadu_si512(b + k * block + block);
            for (int i = 0; i < count; ++i) {
                int pair;
                __builtin_memcpy(&pair, a + i * stored + k, sizeof pair);
                const __m512bh both = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
                sums[i][0] = _mm512_dpbf16_ps(sums[i][0], both, reinterpret_cast<__m512bh>(first));
                sums[i][1] = _mm512_dpbf16_ps(sums[i][1], both, reinterpret_cast<__m512bh>(second));
            }
        }
        for (int i = 0; i < count; ++i) {
            _mm512_storeu_ps(c + i * block, sums[i][0]);
            _mm512_storeu_ps(c + i * block + lanes, sums[i][1]);
        }
    }
};

}  // namespace

void transform_dot(const Shape &shape, const bfloat16 *const *x, std::int64_t begin, std::int64_t end,
                   std::int64_t plane, const bfloat16 *zeros, bfloat16 *v) {
    by_form(shape, [&](auto form) __attribute__((always_inline)) {
        transform_body<Dot, decltype(form)>(shape, x, begin, end, plane, zeros, v);
    });
}

void multiply_dot(const Shape &shape, const bfloat16 *v, const Target *targets, std::int64_t count, std::int64_t plane,
                  const bfloat16 *u, std::int64_t channel, std::int64_t blocks, const Epilogue &last, float *m,
                  bfloat16 *y) {
    by_form(shape, [&](auto form) __attribute__((always_inline)) {
        multiply_body<Dot, decltype(form)>(shape, v, targets, count, plane, u, channel, blocks, last, m, y);
    });
}

}  // namespace zellige::winograd

#pragma GCC pop_options

namespace zellige::winograd {
bool has_dot() {
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
}  // namespace zellige::winograd

#else

namespace zellige::winograd {
bool has_dot() { return false; }
void transform_dot(const Shape &, const bfloat16 *const *, std::int64_t, std::int64_t, std::int64_t, const bfloat16 *,
                   bfloat16 *) {}
void multiply_dot(const Shape &, const bfloat16 *, std::int64_t, std::int64_t, std::int64_t, const bfloat16 *,
                  std::int64_t, std::int64_t, const float *, float *, bfloat16 *) {}
}  // namespace zellige::winograd

#endif
