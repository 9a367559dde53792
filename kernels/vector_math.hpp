// Exponentials without branches, calls or tables, which the compiler turns into vector code.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "native.hpp"

namespace zellige {

// e^r for |r| <= ln 2 / 2: 1 + r + r^2 p(r), with p fitted for the least largest error, 3e-9.
ZELLIGE_INLINE float exp_of_remainder(float r) {
    float p = 0x1.6db462p-10f;
    p = p * r + 0x1.123b7ep-7f;
    p = p * r + 0x1.55545ep-5f;
    p = p * r + 0x1.55548ep-3f;
    p = p * r + 0.5f;
    return (p * (r * r) + r) + 1.0f;
}

// 2^f for |f| <= 1/2 within 1.1e-4, a seventeenth of what bfloat16 rounds away.
ZELLIGE_INLINE float coarse_power_of_two(float f) {
    float p = 0x1.c2a218p-5f;
    p = p * f + 0x1.f00c4ep-3f;
    p = p * f + 0x1.62f5fap-1f;
    return p * f + 1.0f;
}

// 1 + e^-x, whose reciprocal is sigmoid x: within 1 unit in the last place for float32, and within 1.1e-4 for results
// that are stored as bfloat16. Infinite from x = -88.7 down, so that what is divided by it is 0. NaN stays NaN.
// -x = n ln 2 + r: the sum with 1.5 * 2^23 has no bits left for a fraction, so that it rounds, and its low bits hold n;
// 127 more make them the exponent of 2^n. ln 2 comes in two parts, the first with so few bits that its product with n is
// exact.
template <typename T>
ZELLIGE_INLINE float one_plus_exp_of_minus(float x) {
    constexpr float rounder = 0x1.8p23f + 127.0f, per_octave = 0x1.715476p+0f;
    const float above = -89.0f > x ? -89.0f : x, limited = 88.0f < above ? 88.0f : above;
    float rounded, power;
    if constexpr (sizeof(T) == 2) {
        const float octaves = limited * -per_octave;
        rounded = octaves + rounder;
        power = coarse_power_of_two(octaves - (rounded - rounder));
    } else {
        rounded = rounder - limited * per_octave;
        const float n = rounded - rounder;
        power = exp_of_remainder((n * -0x1.63p-1f - limited) + n * 0x1.bd0106p-13f);
    }
    return power * std::bit_cast<float>(std::bit_cast<std::uint32_t>(rounded) << 23) + 1.0f;
}

}  // namespace zellige
