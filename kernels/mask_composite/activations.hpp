// tanh and sigmoid from one exponential each, in operations that every instruction set has as vectors.
#pragma once

#include <cmath>

#include "native.hpp"

namespace zellige {

// Adding 1.5 * 2^23 leaves no bit for a fraction: the sum is rounded, half to even, and its low bits are the integer.
constexpr float rounder = 12582912.0f;

// 2^k from k + rounder; k from -126 to 127. What NaN gives is of no use and does no harm: it only multiplies NaN.
ZELLIGE_INLINE float power_of_two(float rounded) {
    return std::bit_cast<float>((std::bit_cast<std::uint32_t>(rounded) + 127u) << 23);
}

// A quotient that is still to be divided, because one division can serve several.
struct Fraction {
    float numerator, denominator;
};

// |tanh x| = m / (m + 2) with m = exp(2|x|) - 1, under the sign of x. Near 0 nothing cancels: 2^(k + f) - 1 is
// 2^k (2^f - 1) + (2^k - 1), and (2^f - 1) / f is a polynomial (minimax over [-1/2, 1/2], relative error 1.1e-8).
// From 10 on the quotient is 1 in float32; up to 20 its distance from 1 is kept. NaN stays NaN.
ZELLIGE_INLINE Fraction tanh_fraction(float x) {
    const float size = std::fabs(x), limited = 20.0f < size ? 20.0f : size;
    const float exponent = limited * 2.885390081777927f;  // 2 / ln 2
    const float rounded = exponent + rounder;
    const float f = exponent - (rounded - rounder);
    float p = 0.00015403512225020677f;
    p = p * f + 0.0013390735257416964f;
    p = p * f + 0.009618237614631653f;
    p = p * f + 0.05550357326865196f;
    p = p * f + 0.24022649228572845f;
    p = p * f + 0.6931471824645996f;
    const float scale = power_of_two(rounded);
    const float m = scale * (p * f) + (scale - 1.0f);
    return {std::copysign(m, x), m + 2.0f};
}

// exp x for x <= 0, within 2 ulp; 0 below -87, where float32 runs out of normal numbers. NaN stays.
ZELLIGE_INLINE float exp_of_negative(float x) {
    const float rounded = x * 1.4426950408889634f + rounder;  // 1 / ln 2
    const float k = rounded - rounder;
    // ln 2 in two parts, the first with so few bits that its product with k is exact.
    const float r = (x - k * 0.693359375f) - k * -2.12194440e-4f;
    float p = 0.0013888872927054763f;
    p = p * r + 0.00836906861513853f;
    p = p * r + 0.041667137295007706f;
    p = p * r + 0.16666506230831146f;
    p = p * r + 0.4999999701976776f;
    p = p * r + 1.0f;
    const float value = power_of_two(rounded) * (p * r + 1.0f);
    return x < -87.0f ? 0.0f : value;
}

// sigmoid x and sigmoid -x, so that neither has lost digits in a difference from 1.
struct Shares {
    float one, other;
};

ZELLIGE_INLINE Shares sigmoid_shares(float x) {
    const float e = exp_of_negative(x < 0.0f ? x : -x);
    const float large = 1.0f / (1.0f + e), small = e * large;
    return x < 0.0f ? Shares{small, large} : Shares{large, small};
}

}  // namespace zellige
