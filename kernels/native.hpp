// What every native kernel shares: the choice of instruction set, and the storage types.
#pragma once

#include <bit>
#include <cstdint>

#include <nanobind/nanobind.h>

// Compiles the function once for each instruction set; the loader picks the widest that the processor has.
// The attribute does not reach into callees: a function that carries it must be a plain one (neither template
// nor lambda), and all of its work must be in the body or in ZELLIGE_INLINE functions.
#if defined(__x86_64__) && defined(__gnu_linux__)
#define ZELLIGE_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define ZELLIGE_CLONES
#endif
#define ZELLIGE_INLINE static inline __attribute__((always_inline))

namespace zellige {

struct bfloat16 {
    std::uint16_t bits;
};

struct float16 {
    std::uint16_t bits;
};

ZELLIGE_INLINE float widen(float value) { return value; }

ZELLIGE_INLINE float widen(bfloat16 value) { return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16); }

// Integer arithmetic, because AVX2 does not include the conversion instruction. Moving the 15 low bits to the place of
// a float32's exponent and mantissa leaves the exponent 112 too small, which the product repairs exactly, subnormals
// included; infinities and NaN need the largest exponent instead.
ZELLIGE_INLINE float widen(float16 value) {
    const std::uint32_t magnitude = (value.bits & 0x7fffu) << 13;
    const std::uint32_t sign = (value.bits & 0x8000u) << 16;
    const std::uint32_t finite = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f);
    const std::uint32_t special = magnitude | 0x7f800000u;
    return std::bit_cast<float>((magnitude < 0x0f800000u ? finite : special) | sign);
}

void bind_feather_blend(nanobind::module_ &module);

}  // namespace zellige
