// Exponentials, sigmoid and tanh without branches, calls or tables, so that the compiler turns them into vector code.
// T is the type that results are stored as. For bfloat16 the polynomials are shorter, see coarse_rest.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "cpu/native.hpp"

namespace zellige {

// e^r - 1 for |r| <= ln 2 / 2: r + r^2 p(r), with p fitted for the least largest error of e^r, 3e-9.
ZELLIGE_INLINE float rest_of(float r) {
    float p = 0x1.6db462p-10f;
    p = p * r + 0x1.123b7ep-7f;
    p = p * r + 0x1.55545ep-5f;
    p = p * r + 0x1.55548ep-3f;
    p = p * r + 0.5f;
    return p * (r * r) + r;
}

// 2^f - 1 for |f| <= 1/2. The error is at most 1.1e-4 of 2^f, a seventeenth of bfloat16's rounding error, and at most
// 6e-4 of the result itself, a third of it.
ZELLIGE_INLINE float coarse_rest(float f) {
    float p = 0x1.c2a218p-5f;
    p = p * f + 0x1.f00c4ep-3f;
    p = p * f + 0x1.62f5fap-1f;
    return p * f;
}

// e^x = scale * (1 + rest), where scale is a power of two. rest has digits that 1 + rest would lose.
struct Exponential {
    float scale, rest;
};

// Takes x from -88 to 89. Below -87.7 the scale is 0, above 88.4 it is infinite. NaN makes the rest NaN.
// x = n ln 2 + r. The sum of x / ln 2 and 1.5 * 2^23 has no bits left for a fraction, so the addition rounds, and the
// sum's low bits hold n. With 127 added they are the exponent of 2^n. ln 2 is split in two parts. The first has so few
// bits that its product with n is exact.
template <typename T>
ZELLIGE_INLINE Exponential exponential(float x) {
    constexpr float rounder = 0x1.8p23f + 127.0f, per_octave = 0x1.715476p+0f;
    const float octaves = x * per_octave, rounded = octaves + rounder, n = rounded - rounder;
    const float scale = std::bit_cast<float>(std::bit_cast<std::uint32_t>(rounded) << 23);
    if constexpr (sizeof(T) == 2)
        return {scale, coarse_rest(octaves - n)};
    else
        return {scale, rest_of((x - n * 0x1.63p-1f) + n * 0x1.bd0106p-13f)};
}

// 1 + e^-x, whose reciprocal is sigmoid x. The error is 1 unit in the last place for float32, and 1.1e-4 for results
// that are stored as bfloat16. From x = -88.7 down the sum is infinite, and a quotient by it 0. NaN stays NaN.
template <typename T>
ZELLIGE_INLINE float one_plus_exp_of_minus(float x) {
    const float above = -89.0f > x ? -89.0f : x, limited = 88.0f < above ? 88.0f : above;
    const Exponential power = exponential<T>(-limited);
    return (power.rest + 1.0f) * power.scale + 1.0f;
}

// sigmoid x and sigmoid -x. Both are computed, because 1 - sigmoid x would lose digits. The smaller one is 0 below
// e^-87.7. NaN stays NaN.
struct Shares {
    float one, other;
};

template <typename T>
ZELLIGE_INLINE Shares sigmoid_shares(float x) {
    const float below = -std::fabs(x), limited = -88.0f > below ? -88.0f : below;
    const Exponential power = exponential<T>(limited);
    const float e = (power.rest + 1.0f) * power.scale;
    const float large = 1.0f / (1.0f + e), small = e * large;
    return x < 0.0f ? Shares{small, large} : Shares{large, small};
}

// A quotient that is not divided yet, because one division can serve several.
struct Fraction {
    float numerator, denominator;
};

// |tanh x| = m / (m + 2) with m = e^(2|x|) - 1, under the sign of x. Near 0 nothing cancels, because m is made of the
// rest. From 10 on the quotient is 1 in float32, but its distance from 1 is kept up to 20. NaN stays NaN.
template <typename T>
ZELLIGE_INLINE Fraction tanh_fraction(float x) {
    const float size = std::fabs(x), limited = 20.0f < size ? 20.0f : size;
    const Exponential power = exponential<T>(2.0f * limited);
    const float m = power.scale * power.rest + (power.scale - 1.0f);
    return {std::copysign(m, x), m + 2.0f};
}

}  // namespace zellige
